"use strict";
new DataTable("#board", {
  paging: false,
  info: false,
  order: [],
  autoWidth: false,
  layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
  language: { search: "Filter rows", zeroRecords: "No row matches." },
});
