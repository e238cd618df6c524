#include "test.h"

int main(int argc, char ** argv) {
    int run = 0;
    for (const auto & test : testing::cases()) {
        if (argc > 1 && test.name.find(argv[1]) == std::string::npos) {
            continue;
        }
        ++run;
        const int before = testing::failures();
        try {
            test.body();
        } catch (const std::exception & error) {
            testing::fail(test.name.c_str(), 0, std::string("unexpected exception: ") + error.what());
        }
        if (testing::failures() > before) {
            std::fprintf(stderr, "FAILED %s\n", test.name.c_str());
        }
    }
    std::printf("%d tests, %d failed checks\n", run, testing::failures());
    return testing::failures() == 0 && run > 0 ? 0 : 1;
}
