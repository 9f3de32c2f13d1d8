/* TensorRT's native libraries, as far as its Python bindings look for them when they are loaded: every symbol exists and
   gives nothing. With it `import tensorrt_bindings` works on a machine without a GPU and without TensorRT. */
#define NOTHING(symbol) \
    void *symbol(void) { return 0; }

NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getNvOnnxParserVersion)
NOTHING(getPluginRegistry)
NOTHING(initLibNvInferPlugins)
