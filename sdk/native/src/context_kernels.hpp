// What ContextRows does by kind of processor. All forms give the same bytes.
#pragma once

#include "percodec/contexts.hpp"

namespace percodec {

constexpr unsigned kPairLevels = 8;  // alphabets up to this size have pairs

void block_plain(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                 std::uint8_t* out) noexcept;

#if defined(__x86_64__) || defined(__aarch64__)
// With AVX2 or NEON. Sixteen levels at most.
void block_by_sixteen(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                      std::uint8_t* out) noexcept;
#endif

#if defined(__x86_64__)
// Channels with pairs.
void block_avx512(const ContextRows& rows, std::size_t y, std::size_t begin, std::size_t count,
                  std::uint8_t* out) noexcept;
void lines_avx512(const ContextRows& rows, std::size_t y, std::uint8_t* out) noexcept;
#endif

}  // namespace percodec
