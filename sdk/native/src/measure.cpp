// One pass over the symbols before they are coded: are all of them levels, and how many lanes suit them?
#include "percodec/rans.hpp"

namespace percodec {
namespace {

constexpr std::size_t kBlock = 128;  // a count of a block fits a byte: the compiler counts sixteen symbols at a time

std::size_t count_equal(const std::uint8_t* s, std::size_t size, std::uint8_t level) noexcept {
    std::size_t total = 0;
    for (; size >= kBlock; s += kBlock, size -= kBlock) {
        std::uint8_t count = 0;
        for (std::size_t i = 0; i < kBlock; ++i) count = static_cast<std::uint8_t>(count + (s[i] == level ? 1 : 0));
        total += count;
    }
    for (std::size_t i = 0; i < size; ++i) total += s[i] == level ? 1u : 0u;
    return total;
}

bool all_below(const std::uint8_t* s, std::size_t size, unsigned levels) noexcept {
    std::uint8_t highest = 0;
    for (std::size_t i = 0; i < size; ++i) highest = s[i] > highest ? s[i] : highest;
    return highest < levels;
}

}  // namespace

bool measure(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned* lanes) noexcept {
    const unsigned levels = tables.levels();
    std::uint64_t total = 0;  // 1/256 bit; at most 2^27 symbols of 12 bits
    unsigned found = lanes == nullptr ? kMaxLanes : 1;
    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const std::uint8_t* s = symbols + std::size_t{channel} * plane;
        if (found == kMaxLanes) {
            // More content cannot change the answer: from here on only the range matters.
            if (!all_below(s, (tables.channels() - channel) * plane, levels)) return false;
            break;
        }
        const std::uint16_t* cost = tables.cost(channel);
        if (levels <= kVectorLevels) {
            std::size_t known = 0;
            for (unsigned level = 0; level < levels; ++level) {
                const std::size_t count = count_equal(s, plane, static_cast<std::uint8_t>(level));
                known += count;
                total += count * cost[level];
            }
            if (known != plane) return false;
        } else {
            for (std::size_t i = 0; i < plane; ++i) {
                if (s[i] >= levels) return false;
                total += cost[s[i]];
            }
        }
        found = lanes_for((total + 255) / 256 / 8);
    }
    if (lanes != nullptr) *lanes = found;
    return true;
}

}  // namespace percodec
