// The frame of a payload: final states of the encoder first, then words.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "percodec/rans.hpp"

namespace percodec {

inline void store_state(std::uint8_t* p, std::uint32_t x) noexcept {
    store_word(p, x);
    store_word(p + 2, x >> 16);
}

inline std::uint32_t load_state(const std::uint8_t* p) noexcept {
    return load_word(p) | load_word(p + 2) << 16;
}

// States before and after, around whatever codes the symbols. They begin at `low` and are in [low, low << 16).
template <typename Run>
Status write_payload(unsigned lanes, std::uint32_t low, std::uint8_t* begin, std::uint8_t* end, std::uint8_t** payload,
                     Run run) noexcept {
    if (lanes < 1 || lanes > kMaxLanes) return Status::bad_lanes;
    if (static_cast<std::size_t>(end - begin) < 4 * std::size_t{lanes}) return Status::no_space;
    std::uint32_t states[kMaxLanes];
    for (std::uint32_t& x : states) x = low;
    std::uint8_t* const words = run(states, begin + 4 * std::size_t{lanes}, end);
    if (words == nullptr) return Status::no_space;
    *payload = words - 4 * std::size_t{lanes};
    for (unsigned lane = 0; lane < lanes; ++lane) store_state(*payload + 4 * std::size_t{lane}, states[lane]);
    return Status::ok;
}

// `group_bytes`: how far a kernel reads ahead.
template <typename Run>
Status read_payload(const std::uint8_t* payload, std::size_t size, unsigned lanes, std::uint32_t low,
                    std::size_t group_bytes, Run run) noexcept {
    if (lanes < 1 || lanes > kMaxLanes) return Status::bad_lanes;
    const std::size_t state_bytes = 4 * std::size_t{lanes};
    if (size < state_bytes || size % 2 != 0) return Status::bad_length;
    std::uint32_t states[kMaxLanes];
    for (std::uint32_t& x : states) x = low;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        states[lane] = load_state(payload + 4 * std::size_t{lane});
        if (states[lane] < low || states[lane] >> 16 >= low) return Status::bad_state;
    }
    WordReader words(payload + state_bytes, payload + size, group_bytes);
    if (!run(states, words)) return Status::truncated_payload;
    const Status finished = words.finish();
    if (finished != Status::ok) return finished;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        if (states[lane] != low) return Status::bad_final_state;
    }
    return Status::ok;
}

}  // namespace percodec
