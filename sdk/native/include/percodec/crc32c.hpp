// CRC-32C (Castagnoli): polynomial 0x1EDC6F41 reflected, initial value and final xor 0xFFFFFFFF.
#pragma once

#include <cstddef>
#include <cstdint>

namespace percodec {

// CRC of `size` bytes, continuing `crc` (0 to begin): crc32c(b, crc32c(a)) == crc32c(a followed by b).
// Uses the processor's CRC instruction where it has one; the result is the same everywhere.
std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t crc = 0) noexcept;

// The table-driven form alone: what crc32c() is tested against.
std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t crc = 0) noexcept;

}  // namespace percodec
