// NEON kernels: four lanes at a time, an alphabet of up to eight levels in two-register look-ups. Lane counts are
// multiples of four.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "kernels.hpp"

namespace percodec {
namespace {

constexpr unsigned kWidth = 4;

// By which lanes are due: where the words of the stream go (decode), and where those of the lanes go (encode, at the
// end).
struct Shuffles {
    alignas(16) std::uint8_t spread[16][16], pack[16][8];
    std::uint8_t count[16];
};

constexpr Shuffles make_shuffles() {
    Shuffles s{};
    for (unsigned due = 0; due < 16; ++due) {
        unsigned many = 0;
        for (unsigned lane = 0; lane < 4; ++lane) many += due >> lane & 1u;
        s.count[due] = static_cast<std::uint8_t>(many);
        for (unsigned k = 0; k < 16; ++k) s.spread[due][k] = 0xFF;  // reads as zero
        for (unsigned k = 0; k < 8; ++k) s.pack[due][k] = 0xFF;
        unsigned word = 0;
        for (unsigned lane = 0; lane < 4; ++lane) {
            if (!(due >> lane & 1u)) continue;
            for (unsigned byte = 0; byte < 2; ++byte) {
                s.spread[due][4 * lane + byte] = static_cast<std::uint8_t>(2 * word + byte);
                s.pack[due][2 * (4 - many + word) + byte] = static_cast<std::uint8_t>(4 * lane + byte);
            }
            ++word;
        }
    }
    return s;
}

constexpr Shuffles kShuffles = make_shuffles();

using Table = uint8x16x2_t;  // eight values of 32 bits

inline Table load_table(const std::uint32_t* values) noexcept {
    return {{vreinterpretq_u8_u32(vld1q_u32(values)), vreinterpretq_u8_u32(vld1q_u32(values + 4))}};
}

inline uint32x4_t look_up(const Table& table, uint8x16_t bytes) noexcept {
    return vreinterpretq_u32_u8(vqtbl2q_u8(table, bytes));
}

// Levels to the bytes of their values in a table.
inline uint8x16_t bytes_of(uint32x4_t level) noexcept {
    return vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100u), level, 0x04040404u));
}

inline unsigned mask_of(uint32x4_t lanes) noexcept {
    const uint32x4_t bits = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(lanes, bits));
}

}  // namespace

std::uint8_t* encode_neon(const Tables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                          std::uint32_t* states, std::uint8_t* begin, std::uint8_t* next) noexcept {
    const std::size_t rest = plane % lanes;
    for (unsigned channel = tables.channels(); channel-- > 0;) {
        const Tables::Vector& v = *tables.vector(channel);
        const Table reciprocals = load_table(v.reciprocal), shifts = load_table(v.shift), biases = load_table(v.bias);
        const Table complements = load_table(v.complement);
        const Tables::Encode* const row = tables.encode(channel);
        const std::uint8_t* s = symbols + std::size_t{channel} * plane + (plane - rest);
        if (static_cast<std::size_t>(next - begin) < 2 * rest) return nullptr;
        for (std::size_t lane = rest; lane-- > 0;) {
            states[lane] = encode_symbol(row[s[lane] & tables.encode_mask()], states[lane], next);
        }
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            s -= lanes;
            if (static_cast<std::size_t>(next - begin) < 2 * std::size_t{lanes}) return nullptr;
            for (unsigned at = lanes; at > 0;) {
                at -= kWidth;
                const uint32x4_t level = {s[at], s[at + 1], s[at + 2], s[at + 3]};
                const uint8x16_t bytes = bytes_of(level);
                const uint32x4_t complement = look_up(complements, bytes);
                const uint32x4_t frequency = vsubq_u32(vdupq_n_u32(kProbabilityScale), complement);
                const uint32x4_t x = vld1q_u32(states + at);
                const uint32x4_t leaves = vcgeq_u32(x, vshlq_n_u32(frequency, 19));
                const unsigned due = mask_of(leaves);
                // Right-aligned below `next`: what lies before the words is not written yet.
                vst1_u8(next - 8, vqtbl1_u8(vreinterpretq_u8_u32(x), vld1_u8(kShuffles.pack[due])));
                next -= 2 * kShuffles.count[due];
                const uint32x4_t y = vbslq_u32(leaves, vshrq_n_u32(x, 16), x);
                const uint32x4_t reciprocal = look_up(reciprocals, bytes);
                const uint32x2_t low = vshrn_n_u64(vmull_u32(vget_low_u32(y), vget_low_u32(reciprocal)), 32);
                const uint32x2_t high = vshrn_n_u64(vmull_u32(vget_high_u32(y), vget_high_u32(reciprocal)), 32);
                const int32x4_t right = vnegq_s32(vreinterpretq_s32_u32(look_up(shifts, bytes)));
                const uint32x4_t quotient = vshlq_u32(vcombine_u32(low, high), right);
                vst1q_u32(states + at, vmlaq_u32(vaddq_u32(y, look_up(biases, bytes)), quotient, complement));
            }
        }
    }
    return next;
}

bool decode_neon(const Tables& tables, std::size_t plane, unsigned lanes, std::uint32_t* states, WordReader& words,
                 std::uint8_t* symbols) noexcept {
    const std::size_t rest = plane % lanes;
    for (unsigned channel = 0; channel < tables.channels(); ++channel) {
        const Tables::Vector& v = *tables.vector(channel);
        const Table frequency_start = load_table(v.frequency_start);
        const std::uint32_t* const slots = tables.decode(channel);
        for (std::size_t groups = plane / lanes; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned at = 0; at < lanes; at += kWidth) {
                const uint32x4_t x = vld1q_u32(states + at);
                const uint32x4_t slot = vandq_u32(x, vdupq_n_u32(kProbabilityScale - 1));
                uint32x4_t level = vdupq_n_u32(0);
                for (unsigned k = 0; k < kNeonLevels - 1; ++k) {
                    level = vsubq_u32(level, vcgeq_u32(slot, vdupq_n_u32(v.threshold[k])));
                }
                const uint32x4_t found = look_up(frequency_start, bytes_of(level));
                const uint32x4_t frequency = vandq_u32(found, vdupq_n_u32(0xFFFF));
                const uint32x4_t offset = vsubq_u32(slot, vshrq_n_u32(found, 16));
                const uint32x4_t stepped = vmlaq_u32(offset, frequency, vshrq_n_u32(x, kPrecisionBits));
                const uint32x4_t wants = vcltq_u32(stepped, vdupq_n_u32(kStateLow));
                const unsigned due = mask_of(wants);
                const uint8x16_t ahead = vcombine_u8(vld1_u8(next), vdup_n_u8(0));
                const uint32x4_t spread = vreinterpretq_u32_u8(vqtbl1q_u8(ahead, vld1q_u8(kShuffles.spread[due])));
                next += 2 * kShuffles.count[due];
                vst1q_u32(states + at, vbslq_u32(wants, vorrq_u32(vshlq_n_u32(stepped, 16), spread), stepped));
                const uint8x8_t narrow = vmovn_u16(vcombine_u16(vmovn_u32(level), vdup_n_u16(0)));
                vst1_lane_u32(reinterpret_cast<std::uint32_t*>(symbols + at), vreinterpret_u32_u8(narrow), 0);
            }
            words.next = next;
            symbols += lanes;
        }
        if (!words.ready()) return false;
        for (std::size_t lane = 0; lane < rest; ++lane) symbols[lane] = decode_symbol(slots, states[lane], words.next);
        symbols += rest;
    }
    return true;
}

}  // namespace percodec

#endif
