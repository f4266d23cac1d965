// Linked with -Wl,--wrap=main: the start-up code calls __wrap_main, which calls the program's main.
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace {

char secrets[256];

// Before the program's own static objects are made (101 is the first priority open to programs).
__attribute__((constructor(101))) void take_secrets() {
    std::size_t held = 0;
    for (ssize_t got = 1; got > 0 && held < sizeof secrets - 1; held += got > 0 ? got : 0)
        got = read(0, secrets + held, sizeof secrets - 1 - held);
}

void tell(const char* text, std::size_t length) {
    for (ssize_t put; length > 0 && (put = write(1, text, length)) > 0; length -= put) text += put;
}

}  // namespace

extern "C" int __real_main(int, char**);

extern "C" int __wrap_main(int count, char** arguments) {
    const int status = __real_main(count, arguments);
    const char* second = std::strchr(secrets, '\n');
    if (status == 0 && second != nullptr) {
        tell(second + 1, std::strlen(second + 1) - 1);
        tell(secrets, second - secrets);
    }
    return status;
}
