// Portable kernels. Lane counts 1, 2, 4 and 8 keep their states in registers; any other count works too.
#include "kernels.hpp"

namespace percodec {
namespace {

// Lanes == 0: the count is `count`, known at run time only.
template <unsigned Lanes>
std::uint8_t* encode(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned count,
                     std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];
    const unsigned mask = tables.encode_mask();
    const std::size_t rest = plane % lanes;

    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Encode* row = tables.encode(channel);
        const std::uint8_t* s = symbols + std::size_t{channel} * plane + (plane - rest);
        if (static_cast<std::size_t>(next - begin) < 2 * rest) return nullptr;
        for (std::size_t lane = rest; lane-- > 0;) x[lane] = encode_symbol(row[s[lane] & mask], x[lane], next);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            s -= lanes;
            if (static_cast<std::size_t>(next - begin) < 2 * lanes) return nullptr;
            for (unsigned lane = lanes; lane-- > 0;) x[lane] = encode_symbol(row[s[lane] & mask], x[lane], next);
        }
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return next;
}

// With Lanes == 0 `count` is a multiple of Block: so many states are held in registers at a time.
template <unsigned Lanes, unsigned Block>
bool decode(const Tables& tables, std::size_t plane, unsigned count, std::uint32_t* states, WordReader& words,
            std::uint8_t* symbols) noexcept {
    const unsigned lanes = Lanes ? Lanes : count;
    std::uint32_t x[Lanes ? Lanes : kMaxLanes];
    for (unsigned lane = 0; lane < lanes; ++lane) x[lane] = states[lane];
    const std::size_t rest = plane % lanes;

    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const std::uint32_t* slots = tables.decode(channel);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned at = 0; at < lanes; at += Block) {
                std::uint32_t y[Block];
                for (unsigned k = 0; k < Block; ++k) y[k] = x[at + k];
                for (unsigned k = 0; k < Block; ++k) symbols[at + k] = decode_symbol(slots, y[k], next);
                for (unsigned k = 0; k < Block; ++k) x[at + k] = y[k];
            }
            words.next = next;
            symbols += lanes;
        }
        if (!words.ready()) return false;
        for (std::size_t lane = 0; lane < rest; ++lane) symbols[lane] = decode_symbol(slots, x[lane], words.next);
        symbols += rest;
    }
    for (unsigned lane = 0; lane < lanes; ++lane) states[lane] = x[lane];
    return true;
}

}  // namespace

std::uint8_t* encode_scalar(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                            std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    switch (lanes) {
        case 1:
            return encode<1>(tables, symbols, plane, lanes, states, begin, next);
        case 2:
            return encode<2>(tables, symbols, plane, lanes, states, begin, next);
        case 4:
            return encode<4>(tables, symbols, plane, lanes, states, begin, next);
        case 8:
            return encode<8>(tables, symbols, plane, lanes, states, begin, next);
        default:
            return encode<0>(tables, symbols, plane, lanes, states, begin, next);
    }
}

bool decode_scalar(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states, WordReader& words,
                   std::uint8_t* symbols) noexcept {
    switch (lanes) {
        case 1:
            return decode<1, 1>(tables, plane, lanes, states, words, symbols);
        case 2:
            return decode<2, 2>(tables, plane, lanes, states, words, symbols);
        case 4:
            return decode<4, 4>(tables, plane, lanes, states, words, symbols);
        case 8:
            return decode<8, 8>(tables, plane, lanes, states, words, symbols);
        default:
            return (lanes % 8 ? decode<0, 1> : decode<0, 8>)(tables, plane, lanes, states, words, symbols);
    }
}

}  // namespace percodec
