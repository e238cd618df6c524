#include "gbnf_writer.h"

namespace inferno {

std::string GbnfWriter::add(const std::string & body) {
    const auto known = names_.find(body);
    if (known != names_.end()) {
        return known->second;
    }
    const std::string name = reserve();
    define(name, body);
    names_.emplace(body, name);
    return name;
}

std::string GbnfWriter::reserve() {
    return "r" + std::to_string(n_rules_++);
}

void GbnfWriter::define(const std::string & name, const std::string & body) {
    rules_ += name + " ::= " + body + "\n";
}

std::string GbnfWriter::text(const std::string & root) const {
    return "root ::= " + root + "\n" + rules_;
}

std::string gbnf_literal(std::string_view bytes) {
    static const char * const digits = "0123456789ABCDEF";
    std::string               result = "\"";
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            result += {'\\', c};
        } else if (byte < 0x20 || byte == 0x7F) {
            result += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
        } else {
            result += c;
        }
    }
    return result + "\"";
}

}  // namespace inferno
