// Byte shuffles of eight 16-bit words, by a mask of the lanes that are due: for processors that cannot compress.
#pragma once

#include <array>
#include <cstdint>

namespace percodec {

using Shuffles = std::array<std::array<std::uint8_t, 16>, 256>;

// How many lanes each mask has.
constexpr std::array<std::uint8_t, 256> make_counts() {
    std::array<std::uint8_t, 256> counts{};
    for (unsigned mask = 1; mask < 256; ++mask) counts[mask] = static_cast<std::uint8_t>(counts[mask / 2] + mask % 2);
    return counts;
}

inline constexpr std::array<std::uint8_t, 256> kCount = make_counts();

enum class Shuffle { compress, pack, expand };

// compress: the words of the lanes that are due, in order, at the top; pack: at the bottom. expand: the first words, to
// the lanes that are due. Zero elsewhere.
constexpr Shuffles make_shuffles(Shuffle kind) {
    Shuffles table{};
    for (unsigned mask = 0; mask < 256; ++mask) {
        unsigned place = kind == Shuffle::compress ? 8u - kCount[mask] : 0;
        for (std::uint8_t& byte : table[mask]) byte = 0x80;
        for (unsigned lane = 0; lane < 8; ++lane) {
            if (!(mask >> lane & 1u)) continue;
            const unsigned to = kind == Shuffle::expand ? lane : place;
            const unsigned from = kind == Shuffle::expand ? place : lane;
            table[mask][2 * to] = static_cast<std::uint8_t>(2 * from);
            table[mask][2 * to + 1] = static_cast<std::uint8_t>(2 * from + 1);
            ++place;
        }
    }
    return table;
}

alignas(64) inline constexpr Shuffles kCompress = make_shuffles(Shuffle::compress);
alignas(64) inline constexpr Shuffles kPack = make_shuffles(Shuffle::pack);
alignas(64) inline constexpr Shuffles kExpand = make_shuffles(Shuffle::expand);

}  // namespace percodec
