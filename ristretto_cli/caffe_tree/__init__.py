"""The files of a tree of Caffe and Ristretto that published scripts use: programs, and the SqueezeNet example."""
