// Implementations of one bitstream: all of them write and read the same bytes.
#pragma once

#include <cstdint>

namespace percodec {

// `automatic` is the fastest that this processor has for the case at hand.
enum class Kernel : std::uint8_t { automatic = 0, scalar, avx2, avx512, neon };

bool kernel_supported(Kernel kernel) noexcept;

}  // namespace percodec
