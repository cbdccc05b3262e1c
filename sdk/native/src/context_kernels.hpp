// ContextRows::block, one form per kind of processor. All of them give the same bytes.
#pragma once

#include "percodec/contexts.hpp"

namespace percodec {

constexpr unsigned kPairLevels = 8;  // alphabets up to this size have pairs

void block_plain(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, unsigned scale,
                 std::uint8_t* out) noexcept;

#if defined(__x86_64__)
// Sixteen levels at most.
void block_avx2(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, unsigned scale,
                std::uint8_t* out) noexcept;

bool contexts_avx512_supported() noexcept;

// Channels with pairs.
void block_avx512(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, unsigned scale,
                  std::uint8_t* out) noexcept;
std::size_t lines_avx512(const ContextRows& rows, std::size_t y, unsigned scale, std::uint8_t* out) noexcept;
#endif

#if defined(__aarch64__)
// Sixteen levels at most.
void block_neon(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count, unsigned scale,
                std::uint8_t* out) noexcept;
#endif

}  // namespace percodec
