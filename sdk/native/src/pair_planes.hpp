// Profile 3 where a register holds words but cannot compress them: AVX2, NEON. States are two planes of 16 bits, 16
// lanes each; `Halves` of such planes are looked up together. The file that includes this has named its functions'
// attribute, PERCODEC_VECTOR, and what a processor does with words: Words with the usual operators and the functions on
// them used here, Table, Pairs, send() and fetch().
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "pair_kernels.hpp"

namespace percodec {
namespace {

constexpr unsigned kHalf = 16;

struct Planes {
    Words low, high;  // state = high << 16 | low
};

PERCODEC_VECTOR inline Planes load_planes(const std::uint32_t* states) noexcept {
    alignas(32) std::uint16_t low[kHalf], high[kHalf];
    for (unsigned lane = 0; lane < kHalf; ++lane) {
        low[lane] = static_cast<std::uint16_t>(states[lane]);
        high[lane] = static_cast<std::uint16_t>(states[lane] >> 16);
    }
    return {load(low), load(high)};
}

PERCODEC_VECTOR inline void store_planes(std::uint32_t* states, const Planes& x) noexcept {
    alignas(32) std::uint16_t low[kHalf], high[kHalf];
    store(low, x.low);
    store(high, x.high);
    for (unsigned lane = 0; lane < kHalf; ++lane) states[lane] = std::uint32_t{high[lane]} << 16 | low[lane];
}

// The first `count` of the sixteen lanes from `lane` on.
PERCODEC_VECTOR inline Words first_lanes(std::size_t count, std::size_t lane) noexcept {
    alignas(32) static constexpr std::uint16_t kLane[kHalf] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const std::size_t mine = count > lane ? count - lane : 0;
    return above(all(mine < kHalf ? static_cast<unsigned>(mine) : kHalf), load(kLane));
}

template <unsigned Rows>
struct EncodeRow {
    Table<Rows> frequency, start, reciprocal_low, reciprocal_high;
    PERCODEC_VECTOR explicit EncodeRow(const PairTables::Channel& c) noexcept
        : frequency(c.frequency),
          start(c.start),
          reciprocal_low(c.reciprocal_low),
          reciprocal_high(c.reciprocal_high) {}
};

// As in pair_kernel_avx512.cpp: the quotient of three partial products is 0 to 3 too low.
PERCODEC_VECTOR inline Planes grow(const Planes& x, Words frequency, Words start, Words low, Words high) noexcept {
    const Words one = all(1);
    const Words below = times_high(x.high, low) + times_high(x.low, high);
    const Words estimate = x.high * high + below;
    Words q_high = times_high(x.high, high) + one + at_least(estimate, below);

    Words left = x.low - estimate * frequency;
    const Words twice = frequency + frequency, by_two = at_least(left, twice);
    left = left - (by_two & twice);
    const Words by_one = at_least(left, frequency);
    const Words q = estimate - by_two - by_two - by_one;
    q_high = q_high + one + at_least(q, estimate);
    return {(q << kPairBits) + (left - (by_one & frequency)) + start, (q_high << kPairBits) | (q >> (16 - kPairBits))};
}

// The pairs of `lanes`, of all of them where All.
template <bool All, unsigned Halves, unsigned Rows>
PERCODEC_VECTOR inline void encode_group(const EncodeRow<Rows>& row, const Words (&symbols)[Halves],
                                         Planes (&x)[Halves], const Words (&lanes)[Halves],
                                         std::uint8_t*& next) noexcept {
    const Pairs<Halves, Rows> pairs(symbols);
    Words frequency[Halves], start[Halves], low[Halves], high[Halves], due[Halves];
    row.frequency.at(pairs, frequency);
    for (unsigned h = 0; h < Halves; ++h) {
        due[h] = at_least(x[h].high, frequency[h] << (16 - kPairBits));
        if (!All) due[h] = due[h] & lanes[h];
        low[h] = x[h].low;
    }
    next = send(low, due, next);
    row.start.at(pairs, start);
    row.reciprocal_low.at(pairs, low);
    row.reciprocal_high.at(pairs, high);
    for (unsigned h = 0; h < Halves; ++h) {
        const Planes sent{choose(due[h], x[h].high, x[h].low), x[h].high & ~due[h]};
        const Planes grown = grow(sent, frequency[h], start[h], low[h], high[h]);
        x[h].low = All ? grown.low : choose(lanes[h], grown.low, x[h].low);
        x[h].high = All ? grown.high : choose(lanes[h], grown.high, x[h].high);
    }
}

template <unsigned Halves, unsigned Units, unsigned Rows>
PERCODEC_VECTOR std::uint8_t* encode_planes(const PairTables& tables, const std::uint8_t* symbols,
                                            const PairSteps& steps, unsigned, std::uint32_t* states,
                                            std::uint8_t* begin, std::uint8_t* next, std::uint8_t* highest) noexcept {
    constexpr std::size_t unit = 2 * kHalf * Halves, group = unit * Units;
    Planes x[Units][Halves];
    Words loaded[Halves], lanes[Halves], most = all(0);
    for (unsigned k = 0; k < Units * Halves; ++k) x[k / Halves][k % Halves] = load_planes(states + kHalf * k);
    for (unsigned h = 0; h < Halves; ++h) lanes[h] = most;
    for (unsigned index = tables.channels(); index-- > 0;) {
        const EncodeRow<Rows> row(tables.channel(index));
        const std::size_t count = steps.of(index), rest = count % group;
        const std::uint8_t* s = symbols + std::size_t{index} * steps.plane + (count - rest);
        if (rest > 0) {
            alignas(32) std::uint8_t padded[group] = {}, sent[group + 16];
            std::memcpy(padded, s, rest);
            std::uint8_t* first = sent + sizeof(sent);
            for (unsigned u = Units; u-- > 0;) {
                for (unsigned h = 0; h < Halves; ++h) {
                    loaded[h] = load(padded + unit * u + 2 * kHalf * h);
                    most = larger_bytes(most, loaded[h]);
                    lanes[h] = first_lanes((rest + 1) / 2, kHalf * (Halves * u + h));
                }
                encode_group<false, Halves, Rows>(row, loaded, x[u], lanes, first);
            }
            const auto bytes = static_cast<std::size_t>(sent + sizeof(sent) - first);
            if (static_cast<std::size_t>(next - begin) < bytes) return nullptr;
            next -= bytes;
            std::memcpy(next, first, bytes);
        }
        for (std::size_t groups = count / group; groups > 0; --groups) {
            s -= group;
            if (static_cast<std::size_t>(next - begin) < group) return nullptr;
            for (unsigned u = Units; u-- > 0;) {
                for (unsigned h = 0; h < Halves; ++h) {
                    loaded[h] = load(s + unit * u + 2 * kHalf * h);
                    most = larger_bytes(most, loaded[h]);
                }
                encode_group<true, Halves, Rows>(row, loaded, x[u], lanes, next);
            }
        }
    }
    for (unsigned k = 0; k < Units * Halves; ++k) store_planes(states + kHalf * k, x[k / Halves][k % Halves]);
    alignas(32) std::uint8_t each[2 * kHalf];
    store(each, most);
    *highest = 0;
    for (const std::uint8_t one : each) *highest = one > *highest ? one : *highest;
    return next;
}

template <unsigned Rows>
struct DecodeRow {
    static constexpr unsigned kThresholds = 2 * Rows - 1;
    Words first[kThresholds], second[kThresholds];  // one less: slots above belong to a higher symbol
    Table<Rows> frequency, start;
    PERCODEC_VECTOR explicit DecodeRow(const PairTables::Channel& c) noexcept : frequency(c.frequency), start(c.start) {
        for (unsigned k = 0; k < kThresholds; ++k) {
            first[k] = all(c.first[k] - 1u);
            second[k] = repeat(c.second[k]) - all(1);
        }
    }
};

// Pairs, a word each: first symbol | second << 8.
template <unsigned Rows>
PERCODEC_VECTOR inline Words pairs_at(const DecodeRow<Rows>& row, Words slot) noexcept {
    Words first = all(0), second = first;
    for (unsigned k = 0; k < row.kThresholds; ++k) first = first - above(slot, row.first[k]);
    const Words bytes = first * all(0x0202) + all(0x0100);
    for (unsigned k = 0; k < row.kThresholds; ++k) second = second - above(slot, pick(row.second[k], bytes));
    return first | second << 8;
}

template <bool All, unsigned Halves, unsigned Rows>
PERCODEC_VECTOR inline void decode_group(const DecodeRow<Rows>& row, Planes (&x)[Halves], const Words (&lanes)[Halves],
                                         const std::uint8_t*& next, std::uint8_t* symbols) noexcept {
    Words slot[Halves], both[Halves], frequency[Halves], start[Halves], low[Halves], high[Halves], due[Halves];
    for (unsigned h = 0; h < Halves; ++h) {
        slot[h] = x[h].low & all(kPairScale - 1);
        both[h] = pairs_at(row, slot[h]);
        store(symbols + 2 * kHalf * h, both[h]);
    }
    const Pairs<Halves, Rows> pairs(both);
    row.frequency.at(pairs, frequency);
    row.start.at(pairs, start);
    for (unsigned h = 0; h < Halves; ++h) {
        const Words times_low = x[h].high << (16 - kPairBits) | x[h].low >> kPairBits;  // x >> 14
        const Words times_top = x[h].high >> kPairBits, offset = slot[h] - start[h];
        low[h] = frequency[h] * times_low + offset;
        high[h] = times_high(frequency[h], times_low) + frequency[h] * times_top + all(1) + at_least(low[h], offset);
        due[h] = equal(high[h], all(0));
        if (!All) due[h] = due[h] & lanes[h];
    }
    Words words[Halves];
    next = fetch(words, due, next);
    for (unsigned h = 0; h < Halves; ++h) {
        const Planes full{choose(due[h], words[h], low[h]), choose(due[h], low[h], high[h])};
        x[h].low = All ? full.low : choose(lanes[h], full.low, x[h].low);
        x[h].high = All ? full.high : choose(lanes[h], full.high, x[h].high);
    }
}

template <unsigned Halves, unsigned Units, unsigned Rows>
PERCODEC_VECTOR bool decode_planes(const PairTables& tables, const PairSteps& steps, unsigned, std::uint32_t* states,
                                   WordReader& words, std::uint8_t* symbols) noexcept {
    constexpr std::size_t unit = 2 * kHalf * Halves, group = unit * Units;
    Planes x[Units][Halves];
    Words lanes[Halves];
    for (unsigned k = 0; k < Units * Halves; ++k) x[k / Halves][k % Halves] = load_planes(states + kHalf * k);
    for (unsigned h = 0; h < Halves; ++h) lanes[h] = all(0);
    for (unsigned index = 0; index < tables.channels(); ++index) {
        const DecodeRow<Rows> row(tables.channel(index));
        const std::size_t count = steps.of(index), rest = count % group;
        for (std::size_t groups = count / group; groups > 0; --groups) {
            if (!words.ready()) return false;
            const std::uint8_t* next = words.next;
            for (unsigned u = 0; u < Units; ++u)
                decode_group<true, Halves, Rows>(row, x[u], lanes, next, symbols + unit * u);
            words.next = next;
            symbols += group;
        }
        if (!words.ready()) return false;
        if (rest == 0) continue;
        alignas(32) std::uint8_t found[group];
        for (unsigned u = 0; u < Units; ++u) {
            for (unsigned h = 0; h < Halves; ++h) lanes[h] = first_lanes((rest + 1) / 2, kHalf * (Halves * u + h));
            decode_group<false, Halves, Rows>(row, x[u], lanes, words.next, found + unit * u);
        }
        std::memcpy(symbols, found, rest);
        symbols += rest;
    }
    for (unsigned k = 0; k < Units * Halves; ++k) store_planes(states + kHalf * k, x[k / Halves][k % Halves]);
    return true;
}

template <unsigned Halves, unsigned Units, unsigned Rows>
PairKernels kernels() noexcept {
    return {encode_planes<Halves, Units, Rows>, decode_planes<Halves, Units, Rows>};
}

// What whole groups of 32 symbols cost.
template <unsigned Rows>
PERCODEC_VECTOR std::uint64_t cost_planes(const PairTables::Channel& channel, const std::uint8_t* symbols,
                                          std::size_t groups) noexcept {
    const Table<Rows> table(channel.cost);
    std::uint64_t total = 0;
    while (groups > 0) {
        Words sum = all(0), cost[1];
        const std::size_t block = groups < 16 ? groups : 16;  // sums of 3584 each stay below 2^16
        for (std::size_t k = 0; k < block; ++k, symbols += 2 * kHalf) {
            const Words loaded[1] = {load(symbols)};
            table.at(Pairs<1, Rows>(loaded), cost);
            sum = sum + cost[0];
        }
        alignas(32) std::uint16_t each[kHalf];
        store(each, sum);
        for (const std::uint16_t one : each) total += one;
        groups -= block;
    }
    return total;
}

}  // namespace

PairKernels pairs_in_planes(unsigned lanes, unsigned levels) noexcept {
    const bool small = levels <= 6;
    if (lanes == 64) return small ? kernels<kHalves, 4 / kHalves, 3>() : kernels<kHalves, 4 / kHalves, 4>();
    if (lanes == 32) return small ? kernels<kHalves, 2 / kHalves, 3>() : kernels<kHalves, 2 / kHalves, 4>();
    if (lanes == 16) return small ? kernels<1, 1, 3>() : kernels<1, 1, 4>();
    return {nullptr, nullptr};
}

std::uint64_t cost_pairs_planes(const PairTables::Channel& channel, const std::uint8_t* symbols, std::size_t groups,
                                unsigned levels) noexcept {
    return levels <= 6 ? cost_planes<3>(channel, symbols, groups) : cost_planes<4>(channel, symbols, groups);
}

}  // namespace percodec
