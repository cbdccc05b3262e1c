// What a latent's symbols are like, channel by channel: how often each level stands, and how often neighbours are
// equal.
#pragma once

#include <cstddef>
#include <cstdint>

namespace percodec {

// Of uint8 [channels, height, width], `counts` [channels, levels + 2]: how often each level stands, then how many
// symbols equal their right and how many their lower neighbour. Symbols of `levels` and above are in none of the first.
void latent_statistics(const std::uint8_t* symbols, std::size_t channels, std::size_t height, std::size_t width,
                       std::size_t levels, std::uint32_t* counts) noexcept;

// The same with `borders` [channels, B] instead of levels: `counts` [channels, B + 2] is first how many symbols
// are below each border. Quicker where there are few.
void latent_statistics_below(const std::uint8_t* symbols, std::size_t channels, std::size_t height, std::size_t width,
                             const std::uint16_t* borders, std::size_t per_channel, std::uint32_t* counts) noexcept;

}  // namespace percodec
