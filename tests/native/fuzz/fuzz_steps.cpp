// Any symbols of a latent of uniform steps: every kernel codes them to the same packet and reads it back, and none
// takes that packet with one bit turned, or cut. The first bytes say which bit, where the cut is, how many lanes
// (0: any), whether in a stream, where the latent before comes first, and which of two sizes.
#include <cstring>

#include "tables.hpp"

namespace {

void must(bool fits) {
    if (!fits) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 7) return 0;
    const bool temporal = data[5] & 1;
    const percodec::LatentCoder& coder = data[5] & 2 ? fuzz::of_steps(temporal) : fuzz::few_of_steps(temporal);
    const percodec::EntropyModel& model = fuzz::model_of_steps(temporal);
    std::uint32_t where = 0;
    std::memcpy(&where, data, 4);
    const std::size_t plane = coder.symbols() / model.channels();
    fuzz::Bytes symbols(coder.planes() * plane);
    for (std::size_t k = 0; k < symbols.size(); ++k) {
        const unsigned levels = model.levels_of(static_cast<unsigned>(k / plane % model.channels()));
        symbols[k] = static_cast<std::uint8_t>(data[6 + k % (size - 6)] % levels);
    }
    fuzz::Bytes first;
    for (const percodec::Kernel kernel :
         {percodec::Kernel::scalar, percodec::Kernel::avx2, percodec::Kernel::avx512, percodec::Kernel::neon}) {
        if (!percodec::kernel_supported(kernel)) continue;
        fuzz::Bytes buffer(coder.packet_bound());
        std::size_t written = 0;
        percodec::PacketHeader header;
        header.lanes = static_cast<std::uint8_t>(data[4] % 65);
        must(coder.encode(symbols.data(), &header, kernel, buffer.data(), buffer.size(), &written) ==
             percodec::Status::ok);
        fuzz::Bytes packet(buffer.end() - static_cast<std::ptrdiff_t>(written), buffer.end());
        if (first.empty()) first = packet;
        must(packet == first);
        percodec::PacketHeader found;
        fuzz::Bytes again(symbols);
        std::memset(again.data() + again.size() - coder.symbols(), 255, coder.symbols());
        must(coder.decode(packet.data(), packet.size(), kernel, again.data(), &found) == percodec::Status::ok);
        must(again == symbols);
        packet[where / 8 % written] ^= static_cast<std::uint8_t>(1u << where % 8);
        must(coder.decode(packet.data(), packet.size(), kernel, again.data(), &found) != percodec::Status::ok);
        must(coder.decode(first.data(), where % written, kernel, again.data(), &found) != percodec::Status::ok);
    }
    return 0;
}
