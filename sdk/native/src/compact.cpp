// Compact packets. BITSTREAM.md, "Compact packets", is the normative text.
#include <cstring>
#include <initializer_list>

#include "pair_kernels.hpp"
#include "payload.hpp"
#include "percodec/crc32c.hpp"
#include "percodec/packet.hpp"

namespace percodec {
namespace {

constexpr std::uint8_t kCompactMagic = 0x63;  // "c"
constexpr std::size_t kHeadBytes = 4;         // magic, lanes, pairs in the tail
constexpr std::size_t kMostTailPairs = 0xFFFF;
constexpr unsigned kTailLanes = 2;  // they begin with the checksum; the words they send are where the others begin

unsigned compact_lanes(std::uint64_t ideal_bytes) noexcept {
    unsigned found = 4;
    for (const unsigned lanes : {8u, 16u, 32u, 48u, 64u}) found = lanes <= 4 + ideal_bytes / 72 ? lanes : found;
    return found;
}

// A latent as one row of pairs, channel by channel.
class PairRow {
  public:
    explicit PairRow(std::size_t plane) noexcept : in_channel((plane + 1) / 2), plane_(plane) {}

    // Pairs before `count` take steps.
    PairSteps before(std::size_t count) const noexcept {
        return {plane_, 2 * (count % in_channel), static_cast<unsigned>(count / in_channel)};
    }

    // Whether the second symbol of a channel's pair is outside.
    bool half(std::size_t pair) const noexcept { return plane_ % 2 != 0 && pair + 1 == in_channel; }

    // That pair of a channel's symbols.
    unsigned at(const std::uint8_t* s, std::size_t pair) const noexcept {
        return half(pair) ? half_pair(s[2 * pair]) : pair_at(s, pair);
    }

    const std::size_t in_channel;

  private:
    std::size_t plane_;
};

// Codes pairs from the end of the latent while the words fit the other lanes. Returns how many.
std::size_t encode_tail(const PairTables& tables, const std::uint8_t* symbols, std::size_t plane, unsigned lanes,
                        std::uint32_t* states) noexcept {
    const PairRow pairs(plane);
    std::uint8_t words[2 * kMaxLanes];
    std::uint8_t* const end = words + sizeof(words);
    std::uint8_t *next = end, *const full = end - 2 * (lanes - kTailLanes);
    std::size_t count = 0;
    const auto code = [&](const Tables::Encode& entry) {
        std::uint32_t& x = states[count % kTailLanes];
        if (count == kMostTailPairs || (next == full && x >= entry.renorm_from)) return false;
        x = encode_symbol(entry, x, next);
        ++count;
        return true;
    };
    bool more = true;
    for (unsigned channel = tables.channels(); channel-- > 0 && more;) {
        const Tables::Encode* const row = tables.channel(channel).encode;
        const std::uint8_t* const s = symbols + channel * plane;
        for (std::size_t pair = pairs.in_channel; pair > 0 && more; --pair) more = code(row[pairs.at(s, pair - 1)]);
    }
    for (unsigned lane = kTailLanes; next < end; ++lane, next += 2) states[lane] += load_word(next);
    return count;
}

// Undoes it: the `count` pairs behind `steps`, whose symbols are known. A tail that could have been longer is refused:
// a latent and a number of lanes have one packet.
Status decode_tail(const PairTables& tables, const PairSteps& steps, std::size_t count, unsigned lanes,
                   std::uint32_t* states, std::uint8_t* symbols) noexcept {
    const PairRow row(steps.plane);
    std::uint8_t words[2 * kMaxLanes] = {};
    const std::uint8_t *next = words, *const end = words + 2 * (lanes - kTailLanes);
    for (unsigned lane = kTailLanes; lane < lanes; ++lane) {
        if (states[lane] >> 16 != 1) return Status::bad_final_state;
        store_word(words + 2 * (lane - kTailLanes), states[lane]);
    }
    const bool full = count < kMostTailPairs && steps.all() > 0;
    if (full) {
        const bool first_of_channel = steps.last == 0;
        const unsigned channel = first_of_channel ? steps.whole - 1 : steps.whole;
        const std::size_t before = (first_of_channel ? row.in_channel : steps.last / 2) - 1;
        const unsigned pair = row.at(symbols + channel * steps.plane, before);
        if (states[count % kTailLanes] < tables.channel(channel).encode[pair].renorm_from) return Status::bad_length;
    }
    std::size_t pair = steps.last / 2;
    for (unsigned index = steps.whole; count > 0; ++index, pair = 0) {
        const PairTables::Channel& channel = tables.channel(index);
        std::uint8_t* const s = symbols + index * steps.plane;
        for (; pair < row.in_channel && count > 0; ++pair) {
            const unsigned found = decode_pair(channel, states[--count % kTailLanes], next);
            if (next > end) return Status::truncated_payload;
            s[2 * pair] = static_cast<std::uint8_t>(found / kPairLevels);
            if (!row.half(pair)) {
                s[2 * pair + 1] = static_cast<std::uint8_t>(found % kPairLevels);
            } else if (found % kPairLevels != 0) {
                return Status::bad_final_state;
            }
        }
    }
    for (; next < end; ++next) {
        if (full || *next != 0) return Status::trailing_payload;
    }
    return Status::ok;
}

// Lanes' states: how many bits each has above 17, four bits for two lanes; the lowest 16 bits of each; the bits between
// those and the highest, in a row.
constexpr std::size_t fixed_bytes(unsigned lanes) noexcept {
    return (lanes + 1) / 2 + 2 * std::size_t{lanes};
}
constexpr std::size_t kMostStateBytes = fixed_bytes(kMaxLanes) + kMaxLanes * 15 / 8;

std::size_t put_states(const std::uint32_t* states, unsigned lanes, std::uint8_t* to) noexcept {
    std::uint8_t* const lows = to + (lanes + 1) / 2;
    std::uint8_t* bytes = to + fixed_bytes(lanes);
    std::memset(to, 0, (lanes + 1) / 2);
    std::uint64_t bits = 0;
    unsigned held = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        const std::uint32_t high = states[lane] >> 16;
        const unsigned more = 31 - static_cast<unsigned>(__builtin_clz(high));
        to[lane / 2] = static_cast<std::uint8_t>(to[lane / 2] | more << lane % 2 * 4);
        store_word(lows + 2 * lane, states[lane]);
        bits |= std::uint64_t{high ^ 1u << more} << held;
        for (held += more; held >= 8; held -= 8, bits >>= 8) *bytes++ = static_cast<std::uint8_t>(bits);
    }
    if (held > 0) *bytes++ = static_cast<std::uint8_t>(bits);
    return static_cast<std::size_t>(bytes - to);
}

// Where the states end, or null where they do not, or are not written as put_states() does.
const std::uint8_t* take_states(const std::uint8_t* from, const std::uint8_t* end, unsigned lanes,
                                std::uint32_t* states) noexcept {
    if (static_cast<std::size_t>(end - from) < fixed_bytes(lanes)) return nullptr;
    if (lanes % 2 != 0 && from[lanes / 2] >> 4 != 0) return nullptr;
    const std::uint8_t* const lows = from + (lanes + 1) / 2;
    const std::uint8_t* bytes = from + fixed_bytes(lanes);
    std::uint64_t bits = 0;
    unsigned held = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        const unsigned more = from[lane / 2] >> lane % 2 * 4 & 15u;
        for (; held < more; held += 8) {
            if (bytes == end) return nullptr;
            bits |= std::uint64_t{*bytes++} << held;
        }
        const std::uint32_t high = static_cast<std::uint32_t>(bits) & ((1u << more) - 1u);
        states[lane] = (high | 1u << more) << 16 | load_word(lows + 2 * lane);
        bits >>= more;
        held -= more;
    }
    return bits == 0 ? bytes : nullptr;
}

}  // namespace

std::uint32_t LatentCoder::compact_crc(const std::uint8_t* symbols) const noexcept {
    std::uint8_t hash[8];
    for (unsigned k = 0; k < 8; ++k) hash[k] = static_cast<std::uint8_t>(table_hash_ >> 8 * k);
    return crc32c(hash, sizeof(hash), latent_crc(symbols, channels_, height_, width_));
}

Status LatentCoder::encode_compact(const std::uint8_t* symbols, unsigned lanes, Kernel kernel, std::uint8_t* buffer,
                                   std::size_t capacity, std::size_t* size) const noexcept {
    if (!pairs_) return Status::bad_profile;
    if (lanes == 0) lanes = lanes_for_pairs(*pairs_, symbols, plane_, kernel, compact_lanes);
    if (lanes < kTailLanes || lanes > kMaxLanes) return Status::bad_lanes;
    std::uint8_t head[kHeadBytes + kMostStateBytes];
    if (capacity < sizeof(head)) return Status::no_space;

    std::uint32_t states[kMaxLanes];
    for (std::uint32_t& x : states) x = kPairStateLow;
    const std::uint32_t crc = compact_crc(symbols);
    states[0] += crc & 0xFFFF;
    states[1] += crc >> 16;
    const std::size_t tail = encode_tail(*pairs_, symbols, plane_, lanes, states);
    const PairRow row(plane_);
    const PairSteps steps = row.before(channels_ * row.in_channel - tail);
    std::uint8_t *const end = buffer + capacity, highest = 0;
    std::uint8_t* const words =
        pair_kernels(lanes, pairs_->levels(), kernel)
            .encode(*pairs_, symbols, steps, lanes, states, buffer + sizeof(head), end, &highest);
    if (words == nullptr) return Status::no_space;
    const std::uint8_t highest_of_tail = highest_of(symbols + steps.all(), this->symbols() - steps.all());
    if (highest >= pairs_->levels() || highest_of_tail >= pairs_->levels()) return Status::symbol_out_of_range;

    head[0] = kCompactMagic;
    head[1] = static_cast<std::uint8_t>(lanes);
    store_word(head + 2, static_cast<std::uint32_t>(tail));
    const std::size_t bytes = kHeadBytes + put_states(states, lanes, head + kHeadBytes);
    std::memcpy(words - bytes, head, bytes);
    *size = static_cast<std::size_t>(end - words) + bytes;
    return Status::ok;
}

Status LatentCoder::decode_compact(const std::uint8_t* packet, std::size_t size, Kernel kernel,
                                   std::uint8_t* symbols) const noexcept {
    if (!pairs_) return Status::bad_profile;
    if (size < kHeadBytes) return Status::too_short;
    if (packet[0] != kCompactMagic) return Status::bad_magic;
    const unsigned lanes = packet[1];
    if (lanes < kTailLanes || lanes > kMaxLanes) return Status::bad_lanes;
    const std::size_t tail = load_word(packet + 2);
    const PairRow row(plane_);
    if (tail > channels_ * row.in_channel) return Status::bad_length;
    const std::uint8_t* const end = packet + size;
    std::uint32_t states[kMaxLanes];
    for (std::uint32_t& x : states) x = kPairStateLow;
    const std::uint8_t* const first = take_states(packet + kHeadBytes, end, lanes, states);
    if (first == nullptr) return Status::bad_length;

    const PairSteps steps = row.before(channels_ * row.in_channel - tail);
    WordReader words(first, end, pair_group_bytes(lanes));
    const DecodePairs run = pair_kernels(lanes, pairs_->levels(), kernel).decode;
    if (!run(*pairs_, steps, lanes, states, words, symbols)) return Status::truncated_payload;
    Status status = words.finish();
    if (status == Status::ok) status = decode_tail(*pairs_, steps, tail, lanes, states, symbols);
    if (status != Status::ok) return status;
    if (states[0] >> 16 != 1 || states[1] >> 16 != 1) return Status::bad_final_state;
    const std::uint32_t crc = (states[0] & 0xFFFF) | (states[1] & 0xFFFF) << 16;
    return crc == compact_crc(symbols) ? Status::ok : Status::bad_latent_crc;
}

}  // namespace percodec
