// How much each input of a model's matrices matters, as llama.cpp's imatrix tool has measured it.
#pragma once

#include <llama.h>

#include <map>
#include <string>
#include <vector>

namespace inferno {

class ImportanceMatrix {
public:
    // A GGUF file of type "imatrix". Throws Error(invalid_request, field "imatrix") for any other.
    explicit ImportanceMatrix(const std::string & path);

    // As the quantizer takes it, for as long as this lives.
    const llama_model_imatrix_data * data() const { return rows_.data(); }

private:
    std::map<std::string, std::vector<float>> means_;  // by tensor: of each input's square
    std::vector<llama_model_imatrix_data>     rows_;   // the last one's name is null
};

}  // namespace inferno
