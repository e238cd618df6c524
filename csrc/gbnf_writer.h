// GBNF text, rule by rule.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace inferno {

class GbnfWriter {
public:
    // The name of a rule with this body; rules with equal bodies are one.
    std::string add(const std::string & body);
    // A name whose body comes later, for rules that refer to themselves. REQUIRES: define() follows.
    std::string reserve();
    void        define(const std::string & name, const std::string & body);

    // The whole grammar, which starts with `root`.
    std::string text(const std::string & root) const;

private:
    std::map<std::string, std::string> names_;  // body -> name
    std::string                        rules_;
    size_t                             n_rules_ = 0;
};

// A literal that stands for these bytes, which must be UTF-8.
std::string gbnf_literal(std::string_view bytes);

}  // namespace inferno
