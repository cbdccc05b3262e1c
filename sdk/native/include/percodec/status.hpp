// What can be wrong with coded data. Coding functions return one of these and never throw.
#pragma once

#include <cstdint>

namespace percodec {

enum class Status : std::uint8_t {
    ok = 0,
    too_short,          // fewer bytes than a header
    bad_magic,          // not a packet
    bad_version,        // a major version this reader does not know
    bad_flags,          // reserved bits are set
    bad_crc,            // the bytes were altered
    bad_lanes,          // lane count outside 1..64
    bad_length,         // declared payload length is not the length at hand
    bad_profile,        // coded with another profile than the tables'
    wrong_tables,       // coded with other tables
    bad_state,          // a lane does not start inside the coder's interval
    truncated_payload,  // the words ended before the symbols
    trailing_payload,   // words are left after the last symbol
    bad_final_state,    // a lane did not return to the encoder's initial state
    bad_latent_crc,     // symbols decoded, but they are not the encoder's symbols
    symbol_out_of_range,
    no_space,
};

constexpr unsigned kStatuses = 17;

// "ok", "too_short", ...
const char* status_name(Status status) noexcept;

}  // namespace percodec
