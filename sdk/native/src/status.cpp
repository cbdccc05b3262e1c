#include "percodec/status.hpp"

namespace percodec {

const char* status_name(Status status) noexcept {
    static constexpr const char* kNames[kStatuses] = {
        "ok",
        "too_short",
        "bad_magic",
        "bad_version",
        "bad_flags",
        "bad_crc",
        "bad_lanes",
        "bad_length",
        "bad_profile",
        "wrong_tables",
        "bad_state",
        "truncated_payload",
        "trailing_payload",
        "bad_final_state",
        "bad_latent_crc",
        "symbol_out_of_range",
        "no_space",
    };
    const auto index = static_cast<unsigned>(status);
    return index < kStatuses ? kNames[index] : "unknown";
}

}  // namespace percodec
