// What one call computes: sizes, strides and pointers. Mirrored field by field in structs.py.
#pragma once
#include <cstdint>

namespace metric_zoo {

enum Rule : int64_t {
  kOffset = 0,    // y_i = grid_i + field_i
  kPosition = 1,  // y_i = field_i
  kBall = 2,      // y_i = a_i / F(u_i), F the norm that the field holds
  kBlend = 3,   // y_i and mask_i between those of a grid of tables, at the place on it that the field holds. The masks
                // are the weights: `weight` holds ones.
  kLinear = 4,  // y_i = grid_i + sum_n field_n terms_in
  kRadial = 5,  // y_i = exp(sum_n field_n exponents_in) grid_i + sum_n field_n terms_in
};

// out[b,o,p] = bias[o] + sum_{c,i} weight[o,c,i] mask_i(p) input[b,c](centre(p) + y_i(p)), bilinear, zero outside.
struct Problem {
  int64_t batch, height, width, channels;  // of the input, stored (B, H, W, C)
  int64_t out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_height, stride_width, top, left, dilation_height, dilation_width;
  int64_t groups;  // of the convolution
  int64_t fields;  // groups of channels that have positions of their own
  int64_t rule;
  int64_t numbers;  // of the field, in one cell or, of rules that compute places, in one window
  // Elements from one to the next; 0 where all share one. Of the field, and of its gradient.
  int64_t field_batch, field_group, field_cell, field_component, field_row, field_column;
  int64_t out_channel, out_pixel;                   // of the output and its gradient
  int64_t weight_out, weight_channel, weight_cell;  // of the weight and its gradient
  int64_t tables_down, tables_across;               // of the blend rule's grid; one down where it has a single axis
  int64_t threads;

  int64_t cells() const { return kernel_height * kernel_width; }
  int64_t pixels() const { return out_height * out_width; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_outputs() const { return out_channels / groups; }
  // A single channel is a matter of many samples, not of many channels.
  bool depthwise() const { return channels > 1 && groups == channels && out_channels == channels; }
  bool gives_every_cell() const { return rule == kOffset || rule == kPosition; }
  bool starts_from_grid() const { return rule == kOffset || rule == kLinear || rule == kRadial; }
  int64_t terms() const { return rule == kLinear || rule == kRadial ? numbers : 0; }
  int64_t tables() const { return rule == kBlend ? tables_down * tables_across : 0; }
  // Whether several pixels or images read one field value, so that its gradient is a sum over threads.
  bool shares_field() const {
    return (field_batch == 0 && batch > 1) || (field_row == 0 && out_height > 1) ||
           (field_column == 0 && out_width > 1);
  }
};

// A depthwise convolution whose samples lie alike at every pixel, as whole pixels. Mirrored field by field in
// structs.py.
struct Stencil {
  int64_t batch, channels, height, width;  // of the input, stored (B, C, H, W)
  int64_t out_height, out_width;
  const int64_t* first;  // (channels + 1): where a channel's samples begin
  const int64_t* rows;   // of what a sample reads, from the pixel; ascending within a channel
  const int64_t* columns;
  int64_t threads;
};

template <class T>
struct Tensors {
  const T* input;
  const T* weight;
  const T* bias;  // or null
  const T* field;
  const T* mask;  // (B, fields, cells, Ho, Wo), or null
  // Of the ball rule (cells, 4): displacement and direction, each (x, y). Of the blend rule (tables, cells, 3):
  // position (y, x) and mask. Of the linear and radial rules (cells, numbers, 3): exponent, y and x.
  const T* table;
  double table_eps;
  T* output;
  // Of the backward pass; a null gradient is not computed.
  const T* grad;
  T* grad_input;  // (B, H, W, C), zeros
  T* grad_weight;
  T* grad_field;  // zeros
  T* grad_mask;
  T* grad_table;  // of the blend rule's tables
};

}  // namespace metric_zoo
