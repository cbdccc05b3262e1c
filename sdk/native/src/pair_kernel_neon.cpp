// Profile 3 with NEON: 16, 32 or 64 lanes in planes.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "shuffles.hpp"

#define PERCODEC_VECTOR

namespace percodec {
namespace {

constexpr unsigned kHalves = 1;  // look-ups are of 16 bytes

struct Words {
    uint16x8_t lower, upper;
};

inline Words all(unsigned word) noexcept {
    const uint16x8_t v = vdupq_n_u16(static_cast<std::uint16_t>(word));
    return {v, v};
}
inline Words load(const void* p) noexcept {
    const auto* bytes = static_cast<const std::uint8_t*>(p);
    return {vreinterpretq_u16_u8(vld1q_u8(bytes)), vreinterpretq_u16_u8(vld1q_u8(bytes + 16))};
}
inline Words repeat(const std::uint16_t* eight) noexcept {
    const uint16x8_t v = vld1q_u16(eight);
    return {v, v};
}
inline void store(void* p, Words a) noexcept {
    auto* bytes = static_cast<std::uint8_t*>(p);
    vst1q_u8(bytes, vreinterpretq_u8_u16(a.lower));
    vst1q_u8(bytes + 16, vreinterpretq_u8_u16(a.upper));
}
inline Words operator+(Words a, Words b) noexcept {
    return {a.lower + b.lower, a.upper + b.upper};
}
inline Words operator-(Words a, Words b) noexcept {
    return {a.lower - b.lower, a.upper - b.upper};
}
inline Words operator&(Words a, Words b) noexcept {
    return {a.lower & b.lower, a.upper & b.upper};
}
inline Words operator|(Words a, Words b) noexcept {
    return {a.lower | b.lower, a.upper | b.upper};
}
inline Words operator~(Words a) noexcept {
    return {~a.lower, ~a.upper};
}
inline Words operator<<(Words a, int bits) noexcept {
    return {a.lower << bits, a.upper << bits};
}
inline Words operator>>(Words a, int bits) noexcept {
    return {a.lower >> bits, a.upper >> bits};
}
inline Words operator*(Words a, Words b) noexcept {
    return {a.lower * b.lower, a.upper * b.upper};
}
inline uint16x8_t times_high(uint16x8_t a, uint16x8_t b) noexcept {
    const uint32x4_t front = vmull_u16(vget_low_u16(a), vget_low_u16(b)), back = vmull_high_u16(a, b);
    return vuzp2q_u16(vreinterpretq_u16_u32(front), vreinterpretq_u16_u32(back));
}
inline Words times_high(Words a, Words b) noexcept {
    return {times_high(a.lower, b.lower), times_high(a.upper, b.upper)};
}
inline Words larger_bytes(Words a, Words b) noexcept {
    return {vreinterpretq_u16_u8(vmaxq_u8(vreinterpretq_u8_u16(a.lower), vreinterpretq_u8_u16(b.lower))),
            vreinterpretq_u16_u8(vmaxq_u8(vreinterpretq_u8_u16(a.upper), vreinterpretq_u8_u16(b.upper)))};
}
inline Words equal(Words a, Words b) noexcept {
    return {vceqq_u16(a.lower, b.lower), vceqq_u16(a.upper, b.upper)};
}
inline Words at_least(Words a, Words b) noexcept {
    return {vcgeq_u16(a.lower, b.lower), vcgeq_u16(a.upper, b.upper)};
}
inline Words above(Words a, Words b) noexcept {
    return {vcgtq_u16(a.lower, b.lower), vcgtq_u16(a.upper, b.upper)};
}
inline Words choose(Words mask, Words a, Words b) noexcept {
    return {vbslq_u16(mask.lower, a.lower, b.lower), vbslq_u16(mask.upper, a.upper, b.upper)};
}
inline uint16x8_t shuffled(uint16x8_t words, uint8x16_t bytes) noexcept {
    return vreinterpretq_u16_u8(vqtbl1q_u8(vreinterpretq_u8_u16(words), bytes));
}
inline Words pick(Words repeated, Words bytes) noexcept {
    return {shuffled(repeated.lower, vreinterpretq_u8_u16(bytes.lower)),
            shuffled(repeated.upper, vreinterpretq_u8_u16(bytes.upper))};
}

// Places in a Table, a byte each.
template <unsigned, unsigned>
struct Pairs {
    uint8x16_t place;
    explicit Pairs(const Words (&symbols)[1]) noexcept {
        const uint8x16_t front = vreinterpretq_u8_u16(symbols[0].lower), back = vreinterpretq_u8_u16(symbols[0].upper);
        place = vaddq_u8(vshlq_n_u8(vuzp1q_u8(front, back), 3), vuzp2q_u8(front, back));
    }
};

inline uint8x16_t looked_up(const uint8x16x3_t& bytes, uint8x16_t place) noexcept {
    return vqtbl3q_u8(bytes, place);
}
inline uint8x16_t looked_up(const uint8x16x4_t& bytes, uint8x16_t place) noexcept {
    return vqtbl4q_u8(bytes, place);
}

template <unsigned Rows>
struct Registers;
template <>
struct Registers<3> {
    using Type = uint8x16x3_t;
};
template <>
struct Registers<4> {
    using Type = uint8x16x4_t;
};

// The low and the high bytes of 16 * Rows words.
template <unsigned Rows>
struct Table {
    typename Registers<Rows>::Type low, high;
    explicit Table(const std::uint16_t* words) noexcept {
        for (unsigned k = 0; k < Rows; ++k) {
            const uint8x16x2_t bytes = vld2q_u8(reinterpret_cast<const std::uint8_t*>(words + 16 * k));
            low.val[k] = bytes.val[0];
            high.val[k] = bytes.val[1];
        }
    }
    void at(const Pairs<1, Rows>& pairs, Words (&words)[1]) const noexcept {
        const uint8x16_t a = looked_up(low, pairs.place), b = looked_up(high, pairs.place);
        words[0] = {vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip2q_u8(a, b))};
    }
};

inline unsigned mask_of(uint16x8_t due) noexcept {
    const uint16x8_t bits = {1, 2, 4, 8, 16, 32, 64, 128};
    return vaddvq_u16(vandq_u16(due, bits));
}

// The words of the lanes in `due` leave, lane 0's to the lowest address. Stores 16 bytes below `next` for eight lanes.
inline std::uint8_t* send_eight(uint16x8_t words, uint16x8_t due, std::uint8_t* next) noexcept {
    const unsigned mask = mask_of(due);
    vst1q_u8(next - 16, vreinterpretq_u8_u16(shuffled(words, vld1q_u8(kCompress[mask].data()))));
    return next - 2 * kCount[mask];
}
inline std::uint8_t* send(const Words (&words)[1], const Words (&due)[1], std::uint8_t* next) noexcept {
    return send_eight(words[0].lower, due[0].lower, send_eight(words[0].upper, due[0].upper, next));
}

// Words for the lanes in `due`. Reads 16 bytes at `next` for eight lanes: see WordReader::ready().
inline uint16x8_t fetch_eight(uint16x8_t due, const std::uint8_t*& next) noexcept {
    const unsigned mask = mask_of(due);
    const uint16x8_t words = vreinterpretq_u16_u8(vld1q_u8(next));
    next += 2 * kCount[mask];
    return shuffled(words, vld1q_u8(kExpand[mask].data()));
}
inline const std::uint8_t* fetch(Words (&words)[1], const Words (&due)[1], const std::uint8_t* next) noexcept {
    words[0].lower = fetch_eight(due[0].lower, next);
    words[0].upper = fetch_eight(due[0].upper, next);
    return next;
}

}  // namespace
}  // namespace percodec

#include "pair_planes.hpp"

#endif
