# 64-bit Arm from another machine: Debian's g++-aarch64-linux-gnu builds, qemu-user runs the tests.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
find_program(PERCODEC_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(PERCODEC_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${PERCODEC_QEMU};-L;/usr/aarch64-linux-gnu")
endif()
