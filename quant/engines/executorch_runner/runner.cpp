// Runs a .pte file for quant/engines/run_on_device.py, which calls these functions through ctypes.
// What they return is 0 where all went well, else an error of ExecuTorch (runtime/core/error.h).

#include <cstdint>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

// The wheel has this in a library, and not in its headers.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

namespace {

struct Network {
  explicit Network(const char* path) : module(path, Module::LoadMode::File) {}
  Module module;
  std::vector<EValue> outputs;
};

}  // namespace

extern "C" {

// A network on this many threads, which all networks of a process share.
int executorch_load(const char* path, int threads, void** network) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool != nullptr) {
    pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
  }
  auto* made = new Network(path);
  const Error error = made->module.load_method("forward");
  if (error != Error::Ok) {
    delete made;
    return static_cast<int>(error);
  }
  *network = made;
  return 0;
}

// The input is float32 of these sizes; how many outputs there are comes back.
int executorch_run(void* network, float* input, const int32_t* sizes, int rank, int* outputs) {
  auto* loaded = static_cast<Network*>(network);
  const auto image = executorch::extension::from_blob(input, std::vector<int32_t>(sizes, sizes + rank));
  auto found = loaded->module.forward({EValue(image)});
  if (!found.ok()) {
    return static_cast<int>(found.error());
  }
  loaded->outputs = std::move(found.get());
  *outputs = static_cast<int>(loaded->outputs.size());
  return 0;
}

// One output of the last run, float32, which lives until the next: where its values lie, and its sizes (16 at most).
int executorch_output(void* network, int place, const float** values, int32_t* sizes, int* rank) {
  const EValue& value = static_cast<Network*>(network)->outputs.at(static_cast<size_t>(place));
  if (!value.isTensor() || value.toTensor().dim() > 16 ||
      value.toTensor().scalar_type() != executorch::aten::ScalarType::Float) {
    return static_cast<int>(Error::InvalidType);
  }
  const auto& tensor = value.toTensor();
  for (int axis = 0; axis < tensor.dim(); ++axis) {
    sizes[axis] = static_cast<int32_t>(tensor.size(axis));
  }
  *rank = static_cast<int>(tensor.dim());
  *values = tensor.const_data_ptr<float>();
  return 0;
}

}  // extern "C"
