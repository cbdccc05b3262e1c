// Any bytes as a payload, behind checksums that agree with them: every kernel refuses it for the same reason, or
// decodes it to the same symbols. The first byte chooses the profile, the second is the number of lanes.
#include <cstring>

#include "percodec/crc32c.hpp"
#include "tables.hpp"

namespace {

void little(fuzz::Bytes& packet, std::size_t at, std::uint64_t value, unsigned bytes) {
    for (unsigned k = 0; k < bytes; ++k) packet[at + k] = static_cast<std::uint8_t>(value >> 8 * k);
}

// A packet whose only doubtful part is its payload. The latent CRC cannot agree: it is the last thing looked at.
fuzz::Bytes framed(const std::uint8_t* payload, std::size_t size, unsigned lanes, std::uint8_t profile,
                   std::uint64_t hash) {
    fuzz::Bytes packet(percodec::kHeaderBytes + size);
    std::memcpy(packet.data(), "PC", 2);
    packet[2] = percodec::kVersion;
    packet[3] = profile;
    packet[4] = static_cast<std::uint8_t>(lanes);
    little(packet, 24, hash, 8);
    little(packet, 32, size, 4);
    if (size > 0) std::memcpy(packet.data() + percodec::kHeaderBytes, payload, size);
    std::uint32_t crc = percodec::crc32c(packet.data(), 40, 0);
    crc = percodec::crc32c(packet.data() + percodec::kHeaderBytes, size, crc);
    little(packet, 40, crc, 4);
    return packet;
}

std::uint64_t hash_of(const char* name) {
    const fuzz::Bytes model = fuzz::read(std::string(name) + ".pcem");
    return percodec::EntropyModel(model.data(), model.size()).table_hash();
}

struct Target {
    const percodec::LatentCoder& coder;
    std::uint8_t profile;
    std::uint64_t hash;
};

void look(const Target& target, const std::uint8_t* data, std::size_t size) {
    const percodec::LatentCoder& coder = target.coder;
    const fuzz::Bytes packet = framed(data + 1, size - 1, data[0], target.profile, target.hash);
    fuzz::Bytes first;
    percodec::Status expected{};
    for (const percodec::Kernel kernel :
         {percodec::Kernel::scalar, percodec::Kernel::avx2, percodec::Kernel::avx512, percodec::Kernel::neon}) {
        if (!percodec::kernel_supported(kernel)) continue;
        fuzz::Bytes symbols(coder.symbols() / coder.channels() * coder.planes(), 255);
        percodec::PacketHeader header;
        const percodec::Status status = coder.decode(packet.data(), packet.size(), kernel, symbols.data(), &header);
        const bool whole = status == percodec::Status::bad_latent_crc || status == percodec::Status::ok;
        if (kernel == percodec::Kernel::scalar) {
            expected = status;
            first = symbols;
        } else if (status != expected || (whole && symbols != first)) {
            std::abort();
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2 || size > 8192) return 0;
    static const Target targets[] = {
        {fuzz::plain(), 0, hash_of("v1.0-order0-8x14x14-L6-auto")},
        {fuzz::with_contexts(), 1, hash_of("v1.0-contexts-5x7x70-L6-auto")},
        {fuzz::of_pairs(), 3, hash_of("v1.0-pairs-3x7x13-L6-lanes16")},
        {fuzz::of_steps(), 4, hash_of("v1.0-steps-6x9x21-lanes16")},
        {fuzz::of_steps(true), 5, hash_of("v1.0-steps-temporal-6x9x21-lanes16")},
    };
    for (const Target& target : targets) {
        if (target.profile == data[0] % 6) look(target, data + 1, size - 1);
    }
    return 0;
}
