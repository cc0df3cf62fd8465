// How slices and shifted images lie in memory as 8-bit integers, the same for every instruction set.
//
// Coefficients are padded with zeros to a multiple of DEPTH. Sixteen slices lie side by side, four coefficients of each
// together, as the integer products of x86 want them: [16 slices][real, imaginary][coefficient / 4][slice][4].
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace hoarfrost::HOARFROST_INSTRUCTIONS {

constexpr std::int64_t LANES = 16;   // slices side by side
constexpr std::int64_t BLOCK = 32;   // slices that are compared with a row at once
constexpr std::int64_t DEPTH = 64;   // coefficients that a tile takes in at once
constexpr float LARGEST = 127.0f;

constexpr std::int64_t rounded_up(std::int64_t count, std::int64_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

// The nearest integer in the low bits: a number of this size has no room for a fraction.
inline std::int32_t nearest(float value) {
    const float shifted = value + 12582912.0f;
    std::int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return bits;
}

// Memory of a length known at run time, on a cache line.
template <class Number>
class Buffer {
  public:
    explicit Buffer(std::int64_t count)
        : numbers_(static_cast<Number*>(::operator new(count * sizeof(Number), std::align_val_t{64}))) {
        std::memset(static_cast<void*>(numbers_), 0, count * sizeof(Number));
    }
    ~Buffer() { ::operator delete(numbers_, std::align_val_t{64}); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Number* begin() { return numbers_; }

  private:
    Number* numbers_;
};

}  // namespace hoarfrost::HOARFROST_INSTRUCTIONS
