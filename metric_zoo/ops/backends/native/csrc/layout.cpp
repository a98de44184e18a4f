// Where the structures that Python mirrors have their fields, as this compiler lays them out.
#include "layout.h"

#include <cstddef>
#include <string>

#include "problem.h"

namespace metric_zoo {

static_assert(sizeof(Tensors<float>) == sizeof(Tensors<double>), "one mirror serves both");

struct Line {
  const char* name;
  size_t bytes;
};

#define PROBLEM(field) {"Problem." #field, offsetof(Problem, field)}
#define TENSORS(field) {"Tensors." #field, offsetof(Tensors<float>, field)}
#define STENCIL(field) {"Stencil." #field, offsetof(Stencil, field)}

// clang-format off: as many fields in a row as fit
static const Line kLines[] = {
    {"Problem", sizeof(Problem)},
    PROBLEM(batch), PROBLEM(height), PROBLEM(width), PROBLEM(channels), PROBLEM(out_channels), PROBLEM(out_height),
    PROBLEM(out_width), PROBLEM(kernel_height), PROBLEM(kernel_width), PROBLEM(stride_height), PROBLEM(stride_width),
    PROBLEM(top), PROBLEM(left), PROBLEM(dilation_height), PROBLEM(dilation_width), PROBLEM(groups), PROBLEM(fields),
    PROBLEM(rule), PROBLEM(numbers), PROBLEM(field_batch), PROBLEM(field_group), PROBLEM(field_cell), PROBLEM(field_component),
    PROBLEM(field_row), PROBLEM(field_column), PROBLEM(out_channel), PROBLEM(out_pixel), PROBLEM(weight_out),
    PROBLEM(weight_channel), PROBLEM(weight_cell), PROBLEM(tables_down), PROBLEM(tables_across), PROBLEM(threads),
    {"Tensors", sizeof(Tensors<float>)},
    TENSORS(input), TENSORS(weight), TENSORS(bias), TENSORS(field), TENSORS(mask), TENSORS(table), TENSORS(table_eps),
    TENSORS(output), TENSORS(grad), TENSORS(grad_input), TENSORS(grad_weight), TENSORS(grad_field),
    TENSORS(grad_mask), TENSORS(grad_table),
    {"Stencil", sizeof(Stencil)},
    STENCIL(batch), STENCIL(channels), STENCIL(height), STENCIL(width), STENCIL(out_height), STENCIL(out_width),
    STENCIL(first), STENCIL(rows), STENCIL(columns), STENCIL(threads),
};
// clang-format on

const char* layout() {
  static const std::string text = [] {
    std::string all;
    for (const Line& line : kLines)
      all += (all.empty() ? "" : "\n") + std::string(line.name) + ' ' + std::to_string(line.bytes);
    return all;
  }();
  return text.c_str();
}

}  // namespace metric_zoo
