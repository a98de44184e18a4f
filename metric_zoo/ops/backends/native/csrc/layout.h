// How the structures of problem.h lie in memory.
#pragma once

namespace metric_zoo {

// One line for a structure ("Problem 256": its bytes), then one for each field ("Problem.height 8": where it begins).
const char* layout();

}  // namespace metric_zoo
