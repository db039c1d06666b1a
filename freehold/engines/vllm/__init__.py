"""vLLM, for machines with GPUs, in a process and, where its libraries ask for it, an
interpreter of its own."""
