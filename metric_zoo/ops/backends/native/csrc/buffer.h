// Memory of a call.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace metric_zoo {

// Memory for vectors: aligned, not initialised, freed with its owner.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size, bool zeros = false) : size_(size) {
    const size_t bytes = (size_t(size > 0 ? size : 1) * sizeof(T) + 63) / 64 * 64;
    // calloc hands out pages that are zero already, so that rows nobody touches cost nothing.
    data_ = static_cast<T*>(zeros ? std::calloc(bytes, 1) : std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
  }
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { std::free(data_); }
  T* get() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace metric_zoo
