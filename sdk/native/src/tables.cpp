#include <stdexcept>
#include <string>

#include "percodec/contexts.hpp"
#include "percodec/rans.hpp"
#include "table_entries.hpp"

namespace percodec {
namespace {

unsigned ceil_log2(std::uint32_t value) {
    unsigned bits = 0;
    while ((1u << bits) < value) ++bits;
    return bits;
}

void set_vector_level(Tables::Vector& v, unsigned level, std::uint32_t start, std::uint32_t frequency) {
    const unsigned bits = ceil_log2(frequency);
    v.complement[level] = kProbabilityScale - frequency;
    v.frequency_start[level] = frequency | start << 16;
    v.frequency[level] = static_cast<std::uint16_t>(frequency);
    v.start[level] = static_cast<std::uint16_t>(start);
    v.inverse[level] = inverse(frequency);
    if (frequency == 1) {
        v.reciprocal[level] = ~std::uint32_t{0};  // quotient x - 1, as above
        v.shift[level] = 0;
        v.bias[level] = start + kProbabilityScale - 1;
    } else {
        const std::uint64_t numerator = std::uint64_t{1} << (bits + 31);
        v.reciprocal[level] = static_cast<std::uint32_t>((numerator + frequency - 1) / frequency);
        v.shift[level] = bits - 1;
        v.bias[level] = start;
    }
}

void check(const std::uint16_t* cdf, unsigned channels, unsigned levels) {
    if (channels < 1 || channels > kMaxChannels * kMaxContexts) throw std::invalid_argument("channels must be 1..1024");
    if (levels < kMinLevels || levels > kMaxLevels) throw std::invalid_argument("levels must be 2..256");
    for (unsigned channel = 0; channel < channels; ++channel) {
        const std::uint16_t* row = cdf + std::size_t{channel} * (levels + 1);
        bool valid = row[0] == 0 && row[levels] == kProbabilityScale;
        for (unsigned level = 0; level < levels; ++level) valid = valid && row[level] < row[level + 1];
        if (!valid) throw std::invalid_argument("channel " + std::to_string(channel) + " does not rise from 0 to 4096");
    }
}

}  // namespace

Tables::Tables(const std::uint16_t* cdf, unsigned channels, unsigned levels, unsigned contexts)
    : channels_(channels), levels_(levels), encode_mask_(1), encode_stride_(levels) {
    check(cdf, channels, levels);
    encode_mask_ = (1u << ceil_log2(levels)) - 1u;
    if (contexts == 0) encode_stride_ = encode_mask_ + 1u;
    encode_.reserve(std::size_t{channels} * encode_stride_);
    const bool slots_wanted = contexts == 0 || levels > kSearchedLevels;
    if (slots_wanted) decode_.resize(std::size_t{channels} * kProbabilityScale);
    cost_.reserve(std::size_t{channels} * levels);
    if (levels <= kVectorLevels) vector_.resize(channels);

    for (unsigned channel = 0; channel < channels; ++channel) {
        const std::uint16_t* row = cdf + std::size_t{channel} * (levels + 1);
        std::uint32_t* slots = slots_wanted ? decode_.data() + std::size_t{channel} * kProbabilityScale : nullptr;
        for (unsigned level = 0; level < levels; ++level) {
            const std::uint32_t start = row[level];
            const std::uint32_t frequency = row[level + 1] - start;
            encode_.push_back(encode_entry(start, frequency, kPrecisionBits, 31));
            cost_.push_back(static_cast<std::uint16_t>(256 * kPrecisionBits - log2_q8(frequency)));
            for (std::uint32_t slot = start; slots_wanted && slot < start + frequency; ++slot) {
                slots[slot] = level | (slot - start) << 8 | frequency << 20;
            }
        }
        while (encode_.size() % encode_stride_) encode_.push_back(encode_.back());
        if (vector_.empty()) continue;
        Vector& v = vector_[channel];
        for (unsigned level = 0; level < kVectorLevels; ++level) {
            const unsigned used = level < levels ? level : levels - 1;
            set_vector_level(v, level, row[used], static_cast<std::uint32_t>(row[used + 1]) - row[used]);
            v.threshold[level] = level + 1 < levels ? row[level + 1] : kProbabilityScale;
        }
    }
    // Symbols may change while they are coded: what any byte picks in the last row is inside.
    encode_.resize(encode_.size() + kMaxLevels, encode_.back());
    cost_.resize(cost_.size() + kMaxLevels);
    if (contexts == 0 || contexts * levels > kWideEntries || levels > 8) return;
    wide_.resize(channels / contexts);
    for (unsigned row = 0; row < channels; ++row) {
        const Vector& v = vector_[row];
        Wide& w = wide_[row / contexts];
        const unsigned context = row % contexts;
        for (unsigned level = 0; level < levels; ++level) {
            const unsigned at = context * levels + level;
            w.reciprocal[at] = v.reciprocal[level];
            w.packed[at] = v.complement[level] | v.bias[level] << 12 | v.shift[level] << 25;
        }
        for (unsigned k = 0; k < 8; ++k) {
            w.threshold[k][context] = v.threshold[k];
            w.frequency_start[k][context] = v.frequency_start[k];
        }
    }
}

unsigned lanes_for(std::uint64_t ideal_bytes, unsigned share) noexcept {
    const std::uint64_t budget = 4 + ideal_bytes * share / 1024;
    unsigned lanes = 1;
    while (lanes < kMaxLanes && 8 * std::uint64_t{lanes} <= budget) lanes *= 2;
    return lanes;
}

}  // namespace percodec
