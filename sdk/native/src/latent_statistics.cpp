#include "percodec/latent_statistics.hpp"

#include <algorithm>
#include <array>

namespace percodec {
namespace {

// For how many k below `size` `holds(k)`; in vectors where that compares bytes.
template <typename Holds>
std::uint32_t count(std::size_t size, Holds holds) noexcept {
    std::uint32_t found = 0;
    for (std::size_t begin = 0; begin < size; begin += 255 * 32) {  // a byte of each lane holds 255
        std::array<std::uint8_t, 32> lanes{};
        const std::size_t end = std::min(size, begin + 255 * 32), whole = begin + (end - begin) / 32 * 32;
        std::size_t k = begin;
        for (; k < whole; k += 32) {
            for (std::size_t lane = 0; lane < 32; ++lane) lanes[lane] += holds(k + lane);
        }
        for (; k < end; ++k) found += holds(k);
        for (const std::uint8_t lane : lanes) found += lane;
    }
    return found;
}

std::uint32_t equal(const std::uint8_t* a, const std::uint8_t* b, std::size_t size) noexcept {
    return count(size, [=](std::size_t k) { return a[k] == b[k]; });
}

std::uint32_t below(const std::uint8_t* symbols, std::size_t size, std::uint32_t border) noexcept {
    if (border > 255) return static_cast<std::uint32_t>(size);
    const auto limit = static_cast<std::uint8_t>(border);
    return count(size, [=](std::size_t k) { return symbols[k] < limit; });
}

// How many symbols equal their right, and how many their lower neighbour.
void neighbours(const std::uint8_t* symbols, std::size_t height, std::size_t width, std::uint32_t* counts) noexcept {
    const std::size_t size = height * width;
    counts[0] = equal(symbols, symbols + 1, size - 1);
    for (std::size_t k = width; k < size; k += width) counts[0] -= symbols[k] == symbols[k - 1];  // of two rows
    counts[1] = equal(symbols, symbols + width, size - width);
}

}  // namespace

void latent_statistics(const std::uint8_t* symbols, std::size_t channels, std::size_t height, std::size_t width,
                       std::size_t levels, std::uint32_t* counts) noexcept {
    const std::size_t size = height * width;
    for (std::size_t channel = 0; channel < channels; ++channel, symbols += size, counts += levels + 2) {
        // Four histograms, so that an increment need not wait for that of an equal symbol before it.
        std::array<std::array<std::uint32_t, 256>, 4> of{};
        std::size_t k = 0;
        for (; k + 4 <= size; k += 4) {
            for (std::size_t lane = 0; lane < 4; ++lane) ++of[lane][symbols[k + lane]];
        }
        for (; k < size; ++k) ++of[0][symbols[k]];
        for (std::size_t level = 0; level < levels; ++level) {
            counts[level] = of[0][level] + of[1][level] + of[2][level] + of[3][level];
        }
        neighbours(symbols, height, width, counts + levels);
    }
}

void latent_statistics_below(const std::uint8_t* symbols, std::size_t channels, std::size_t height, std::size_t width,
                             const std::uint16_t* borders, std::size_t per_channel, std::uint32_t* counts) noexcept {
    const std::size_t size = height * width;
    for (std::size_t channel = 0; channel < channels; ++channel, symbols += size, counts += per_channel + 2) {
        for (std::size_t k = 0; k < per_channel; ++k) counts[k] = below(symbols, size, *borders++);
        neighbours(symbols, height, width, counts + per_channel);
    }
}

}  // namespace percodec
