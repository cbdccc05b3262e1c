#include "percodec/latent_statistics.hpp"

#include <algorithm>
#include <array>

namespace percodec {
namespace {

std::uint32_t equal(const std::uint8_t* a, const std::uint8_t* b, std::size_t size) noexcept {
    std::uint32_t same = 0;
    for (std::size_t begin = 0; begin < size; begin += 255 * 32) {  // a byte of each lane holds 255
        std::array<std::uint8_t, 32> lanes{};
        const std::size_t end = std::min(size, begin + 255 * 32), whole = begin + (end - begin) / 32 * 32;
        std::size_t k = begin;
        for (; k < whole; k += 32) {
            for (std::size_t lane = 0; lane < 32; ++lane) lanes[lane] += a[k + lane] == b[k + lane];
        }
        for (; k < end; ++k) same += a[k] == b[k];
        for (const std::uint8_t lane : lanes) same += lane;
    }
    return same;
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
        std::uint32_t right = 0;
        for (std::size_t y = 0; y < height; ++y)
            right += equal(symbols + y * width, symbols + y * width + 1, width - 1);
        counts[levels] = right;
        counts[levels + 1] = height > 1 ? equal(symbols, symbols + width, size - width) : 0;
    }
}

}  // namespace percodec
