// Reads packets on a vehicle computer or a server, without Python:  percodec_decode entropy.pcem HEIGHT WIDTH a.pcpk
// b.pcpk ... HEIGHT and WIDTH are the latent's, an eighth of the frame's. Prints a line per packet and how many symbols
// of each level it holds.
#include <percodec/entropy_model.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <vector>

int main(int count, char** arguments) {
    if (count < 5) {
        std::fprintf(stderr, "usage: %s entropy.pcem HEIGHT WIDTH PACKET ...\n", arguments[0]);
        return 2;
    }
    try {
        const auto model = percodec::EntropyModel::open(arguments[1]);
        const auto height = static_cast<std::uint32_t>(std::strtoul(arguments[2], nullptr, 10));
        const auto width = static_cast<std::uint32_t>(std::strtoul(arguments[3], nullptr, 10));
        const percodec::LatentCoder coder = model.coder(height, width);
        if (coder.planes() != coder.channels()) {
            std::fprintf(stderr, "%s is for packets that need the latent before\n", arguments[1]);
            return 1;
        }
        std::vector<std::uint8_t> symbols(coder.symbols());
        for (int k = 4; k < count; ++k) {
            std::ifstream file(arguments[k], std::ios::binary);
            // One byte more than a packet can have: a longer file is refused by its length.
            std::vector<std::uint8_t> packet(coder.packet_bound() + 1);
            file.read(reinterpret_cast<char*>(packet.data()), static_cast<std::streamsize>(packet.size()));
            const auto size = static_cast<std::size_t>(file.gcount());
            percodec::PacketHeader header;
            const percodec::Status status =
                coder.decode(packet.data(), size, percodec::Kernel::automatic, symbols.data(), &header);
            if (status != percodec::Status::ok) {
                std::fprintf(stderr, "%s: %s\n", arguments[k], percodec::status_name(status));
                return 1;
            }
            std::vector<std::size_t> histogram(model.levels());
            for (const std::uint8_t symbol : symbols) ++histogram[symbol];
            std::printf("%s: frame %u, %zu bytes, levels", arguments[k], header.frame_id, size);
            for (const std::size_t many : histogram) std::printf(" %zu", many);
            std::printf("\n");
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
