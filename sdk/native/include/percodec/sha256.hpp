// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace percodec {

std::array<std::uint8_t, 32> sha256(const std::uint8_t* data, std::size_t size) noexcept;

}  // namespace percodec
