/* CUDA's driver interface (libcuda.so.1) on a machine without a GPU, for tests.
 *
 * Device memory is host memory. What belongs on a stream is queued, and done as late as CUDA's rules allow: when
 * somebody synchronises, or when an operation of another stream waits for it. Whoever forgets a wait therefore reads old
 * bytes here, every time. There are no kernels; a test puts its computation on a stream with cuLaunchHostFunc.
 *
 * A call without a current context gets CUDA_ERROR_INVALID_CONTEXT, as from CUDA. After an injected fault the context is
 * broken until it is released. `anyseg_test_*` at the end tell a test what is alive, and inject faults.
 *
 * Names and signatures: CUDA Toolkit documentation, "CUDA Driver API". Not thread-safe beyond one global lock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, NOT_SUPPORTED = 801
};
enum { DEVICE_MEMORY, PINNED_MEMORY, STREAMS, EVENTS, GRAPHS, ALLOCATIONS, COPIES, CALLS, COUNTERS };

typedef struct Operation {
    enum { COPY, CALL, RECORD, WAIT } kind;
    void *target;
    const void *source;
    size_t size;
    void (*function)(void *);
    void *argument;
    struct Event *event;
    unsigned long ticket; /* of the record that is made or waited for */
    struct Operation *next;
} Operation;
typedef struct { Operation *first, *last; } Queue;
typedef struct Stream { Queue queue; struct Graph *capture; int context; } Stream;
typedef struct Event { Stream *stream; unsigned long recorded, reached; } Event;
typedef struct Graph { Queue queue; } Graph;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long counters[COUNTERS];
static int retained, broken;              /* the one primary context */
static int fail_error, fail_after = -1;   /* injected: this error at the call after so many */
static char fail_call[64];
static int context_object;                /* its address is the context */
static __thread int stack_depth;
#define CONTEXT ((void *)&context_object)

static int check_context(void) { return stack_depth && retained ? broken : INVALID_CONTEXT; }

static int check(const char *call)
{
    int error = check_context();
    if (error) return error;
    counters[CALLS]++;
    if (fail_after >= 0 && (!*fail_call || !strcmp(call, fail_call)) && fail_after-- == 0) {
        if (fail_error != OUT_OF_MEMORY) broken = fail_error; /* sticky, as CUDA's are */
        return fail_error;
    }
    return SUCCESS;
}
#define CHECK() do { int error_ = check(__func__); if (error_) return error_; } while (0)
/* What gives back fails only with its context. */
#define CHECK_CONTEXT() do { int error_ = check_context(); if (error_) return error_; } while (0)

static void append(Queue *queue, Operation operation)
{
    Operation *entry = malloc(sizeof *entry);
    *entry = operation;
    entry->next = 0;
    if (queue->last) queue->last->next = entry; else queue->first = entry;
    queue->last = entry;
}

static void enqueue(Stream *stream, Operation operation)
{
    append(stream->capture ? &stream->capture->queue : &stream->queue, operation);
}

/* Do what is queued on a stream, up to the record of `until`, or all of it. */
static void drain(Stream *stream, Event *until, unsigned long ticket)
{
    while (stream->queue.first && !(until && until->reached >= ticket)) {
        Operation *operation = stream->queue.first;
        stream->queue.first = operation->next;
        if (!stream->queue.first) stream->queue.last = 0;
        switch (operation->kind) {
        case COPY: memmove(operation->target, operation->source, operation->size); counters[COPIES]++; break;
        case CALL: operation->function(operation->argument); break;
        case RECORD: operation->event->reached = operation->ticket; break;
        case WAIT:
            if (operation->event->reached < operation->ticket)
                drain(operation->event->stream, operation->event, operation->ticket);
            break;
        }
        free(operation);
    }
}

static int copy(void *target, const void *source, size_t size, void *stream)
{
    enqueue(stream, (Operation){.kind = COPY, .target = target, .source = source, .size = size});
    return SUCCESS;
}

/* --- the machine --- */
int cuInit(unsigned flags) { (void)flags; return getenv("ANYSEG_TEST_DRIVER_NO_DEVICE") ? NO_DEVICE : SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? INVALID_VALUE : SUCCESS; }
int cuDeviceGetName(char *name, int size, int device)
{
    (void)device;
    snprintf(name, size, "Test driver on the host's memory");
    return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0; /* compute capability 8.7, that of Orin */
    return SUCCESS;
}
int cuDeviceComputeCapability(int *major, int *minor, int device) { (void)device; *major = 8; *minor = 7; return SUCCESS; }
int cuDeviceTotalMem_v2(size_t *size, int device) { (void)device; *size = (size_t)8 << 30; return SUCCESS; }
int cuMemGetInfo_v2(size_t *available, size_t *total) { CHECK(); *available = (size_t)6 << 30; *total = (size_t)8 << 30; return SUCCESS; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "an error of the test driver"; return SUCCESS; }
int cuGetErrorName(int error, const char **text) { (void)error; *text = "TEST_DRIVER_ERROR"; return SUCCESS; }

/* --- the primary context --- */
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; retained++; *context = CONTEXT; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device)
{
    (void)device;
    if (!retained) return INVALID_CONTEXT;
    if (!--retained && broken) { /* CUDA frees what a broken context still holds when it is destroyed */
        broken = 0;
        memset(counters, 0, sizeof counters[0] * ALLOCATIONS);
    }
    return SUCCESS;
}
int cuCtxPushCurrent_v2(void *context) { if (context != CONTEXT || !retained) return INVALID_CONTEXT; stack_depth++; return SUCCESS; }
int cuCtxPopCurrent_v2(void **context) { if (!stack_depth) return INVALID_CONTEXT; stack_depth--; *context = CONTEXT; return SUCCESS; }
int cuCtxGetCurrent(void **context) { *context = stack_depth ? CONTEXT : 0; return SUCCESS; }
int cuCtxGetDevice(int *device) { *device = 0; return stack_depth ? SUCCESS : INVALID_CONTEXT; }
int cuCtxGetApiVersion(void *context, unsigned *version) { (void)context; *version = 3020; return SUCCESS; }

/* --- memory --- */
static int allocate(void **memory, size_t size, int counter)
{
    if (!size) return INVALID_VALUE;
    *memory = malloc(size);
    memset(*memory, 0xA5, size); /* nobody may count on zeros */
    counters[counter]++;
    counters[ALLOCATIONS]++;
    return SUCCESS;
}
static int release(void *memory, int counter) { free(memory); counters[counter]--; return SUCCESS; }
int cuMemAlloc_v2(uintptr_t *memory, size_t size) { CHECK(); return allocate((void **)memory, size, DEVICE_MEMORY); }
int cuMemFree_v2(uintptr_t memory) { CHECK_CONTEXT(); return release((void *)memory, DEVICE_MEMORY); }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) { (void)flags; CHECK(); return allocate(memory, size, PINNED_MEMORY); }
int cuMemAllocHost_v2(void **memory, size_t size) { CHECK(); return allocate(memory, size, PINNED_MEMORY); }
int cuMemFreeHost(void *memory) { CHECK_CONTEXT(); return release(memory, PINNED_MEMORY); }
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t size, void *stream) { CHECK(); return copy((void *)to, from, size, stream); }
int cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t size, void *stream) { CHECK(); return copy(to, (void *)from, size, stream); }
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t size, void *stream) { CHECK(); return copy((void *)to, (void *)from, size, stream); }

/* --- streams and events --- */
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; CHECK(); *stream = calloc(1, sizeof(Stream)); counters[STREAMS]++; return SUCCESS; }
int cuStreamDestroy_v2(void *stream) { CHECK_CONTEXT(); drain(stream, 0, 0); free(stream); counters[STREAMS]--; return SUCCESS; }
int cuStreamSynchronize(void *stream) { CHECK(); pthread_mutex_lock(&lock); drain(stream, 0, 0); pthread_mutex_unlock(&lock); return SUCCESS; }
int cuCtxSynchronize(void) { CHECK(); return NOT_SUPPORTED; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags)
{
    (void)flags;
    CHECK();
    enqueue(stream, (Operation){.kind = WAIT, .event = event, .ticket = ((Event *)event)->recorded});
    return SUCCESS;
}
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *argument)
{
    CHECK();
    enqueue(stream, (Operation){.kind = CALL, .function = function, .argument = argument});
    return SUCCESS;
}
int cuEventCreate(void **event, unsigned flags) { (void)flags; CHECK(); *event = calloc(1, sizeof(Event)); counters[EVENTS]++; return SUCCESS; }
int cuEventDestroy_v2(void *event) { CHECK_CONTEXT(); free(event); counters[EVENTS]--; return SUCCESS; }
int cuEventRecord(void *event_, void *stream)
{
    CHECK();
    Event *event = event_;
    event->stream = stream;
    enqueue(stream, (Operation){.kind = RECORD, .event = event, .ticket = ++event->recorded});
    return SUCCESS;
}
int cuEventSynchronize(void *event_)
{
    CHECK();
    Event *event = event_;
    pthread_mutex_lock(&lock);
    if (event->reached < event->recorded) drain(event->stream, event, event->recorded);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
int cuEventQuery(void *event) { CHECK(); return ((Event *)event)->reached < ((Event *)event)->recorded ? NOT_READY : SUCCESS; }

/* --- graphs --- */
static int destroy_graph(Graph *graph)
{
    for (Operation *next, *operation = graph->queue.first; operation; operation = next) { next = operation->next; free(operation); }
    free(graph);
    counters[GRAPHS]--;
    return SUCCESS;
}
int cuStreamBeginCapture_v2(void *stream, int mode) { (void)mode; CHECK(); ((Stream *)stream)->capture = calloc(1, sizeof(Graph)); counters[GRAPHS]++; return SUCCESS; }
int cuStreamEndCapture(void *stream_, void **graph)
{
    Stream *stream = stream_;
    *graph = stream->capture;
    stream->capture = 0; /* also when it fails */
    int error = check(__func__);
    if (error) destroy_graph(*graph);
    return error;
}
static int replay(Queue *queue, const Graph *graph)
{
    for (const Operation *operation = graph->queue.first; operation; operation = operation->next) append(queue, *operation);
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags)
{
    (void)flags;
    CHECK();
    *executable = calloc(1, sizeof(Graph));
    counters[GRAPHS]++;
    return replay(&((Graph *)*executable)->queue, graph);
}
int cuGraphLaunch(void *executable, void *stream) { CHECK(); return replay(&((Stream *)stream)->queue, executable); }
int cuGraphDestroy(void *graph) { CHECK_CONTEXT(); return destroy_graph(graph); }
int cuGraphExecDestroy(void *executable) { CHECK_CONTEXT(); return destroy_graph(executable); }

/* --- for cuda.bindings, which asks for every function by name --- */
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status)
{
    (void)version; (void)flags;
    char name[128];
    static const char *const suffixes[] = {"_v2", "WithFlags", ""};
    *function = 0;
    for (unsigned i = 0; i < sizeof suffixes / sizeof *suffixes && !*function; i++) {
        snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
        *function = dlsym(RTLD_DEFAULT, name);
        if (!*function) {
            Dl_info self;
            dladdr((void *)cuInit, &self);
            void *library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
            *function = dlsym(library, name);
            dlclose(library);
        }
    }
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
int cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(symbol, function, version, flags, 0);
}

/* --- what pycuda is linked with and nobody here calls --- */
#define UNUSED(name) int name(void) { return NOT_SUPPORTED; }
UNUSED(cuArray3DCreate_v2) UNUSED(cuArray3DGetDescriptor_v2) UNUSED(cuArrayCreate_v2) UNUSED(cuArrayDestroy)
UNUSED(cuArrayGetDescriptor_v2) UNUSED(cuCtxAttach) UNUSED(cuCtxCreate_v2) UNUSED(cuCtxDetach)
UNUSED(cuCtxDisablePeerAccess) UNUSED(cuCtxEnablePeerAccess) UNUSED(cuCtxGetCacheConfig) UNUSED(cuCtxGetLimit)
UNUSED(cuCtxGetSharedMemConfig) UNUSED(cuCtxSetCacheConfig) UNUSED(cuCtxSetLimit) UNUSED(cuCtxSetSharedMemConfig)
UNUSED(cuDeviceCanAccessPeer) UNUSED(cuDeviceGetByPCIBusId) UNUSED(cuDeviceGetPCIBusId) UNUSED(cuEventElapsedTime)
UNUSED(cuFuncGetAttribute) UNUSED(cuFuncSetAttribute) UNUSED(cuFuncSetBlockShape) UNUSED(cuFuncSetCacheConfig)
UNUSED(cuFuncSetSharedSize) UNUSED(cuIpcCloseMemHandle) UNUSED(cuIpcGetEventHandle) UNUSED(cuIpcGetMemHandle)
UNUSED(cuIpcOpenEventHandle) UNUSED(cuIpcOpenMemHandle_v2) UNUSED(cuLaunch) UNUSED(cuLaunchGrid)
UNUSED(cuLaunchGridAsync) UNUSED(cuLaunchKernel) UNUSED(cuLinkAddData_v2) UNUSED(cuLinkAddFile_v2)
UNUSED(cuLinkComplete) UNUSED(cuLinkCreate_v2) UNUSED(cuLinkDestroy) UNUSED(cuMemAllocManaged)
UNUSED(cuMemAllocPitch_v2) UNUSED(cuMemGetAddressRange_v2) UNUSED(cuMemHostGetDevicePointer_v2)
UNUSED(cuMemHostGetFlags) UNUSED(cuMemHostRegister_v2) UNUSED(cuMemHostUnregister) UNUSED(cuMemcpy2DAsync_v2)
UNUSED(cuMemcpy2DUnaligned_v2) UNUSED(cuMemcpy2D_v2) UNUSED(cuMemcpy3DAsync_v2) UNUSED(cuMemcpy3DPeer)
UNUSED(cuMemcpy3DPeerAsync) UNUSED(cuMemcpy3D_v2) UNUSED(cuMemcpyAtoA_v2) UNUSED(cuMemcpyAtoD_v2)
UNUSED(cuMemcpyAtoH_v2) UNUSED(cuMemcpyDtoA_v2) UNUSED(cuMemcpyDtoD_v2) UNUSED(cuMemcpyDtoH_v2)
UNUSED(cuMemcpyHtoA_v2) UNUSED(cuMemcpyHtoD_v2) UNUSED(cuMemcpyPeer) UNUSED(cuMemcpyPeerAsync)
UNUSED(cuMemsetD16Async) UNUSED(cuMemsetD16_v2) UNUSED(cuMemsetD2D16Async) UNUSED(cuMemsetD2D16_v2)
UNUSED(cuMemsetD2D32Async) UNUSED(cuMemsetD2D32_v2) UNUSED(cuMemsetD2D8Async) UNUSED(cuMemsetD2D8_v2)
UNUSED(cuMemsetD32Async) UNUSED(cuMemsetD32_v2) UNUSED(cuMemsetD8Async) UNUSED(cuMemsetD8_v2)
UNUSED(cuModuleGetFunction) UNUSED(cuModuleGetGlobal_v2) UNUSED(cuModuleGetSurfRef) UNUSED(cuModuleGetTexRef)
UNUSED(cuModuleLoad) UNUSED(cuModuleLoadData) UNUSED(cuModuleLoadDataEx) UNUSED(cuModuleUnload) UNUSED(cuParamSetSize)
UNUSED(cuParamSetTexRef) UNUSED(cuParamSetf) UNUSED(cuParamSeti) UNUSED(cuParamSetv) UNUSED(cuProfilerInitialize)
UNUSED(cuProfilerStart) UNUSED(cuProfilerStop) UNUSED(cuStreamAttachMemAsync) UNUSED(cuStreamQuery)
UNUSED(cuSurfRefGetArray) UNUSED(cuSurfRefSetArray) UNUSED(cuTexRefCreate) UNUSED(cuTexRefDestroy)
UNUSED(cuTexRefGetAddressMode) UNUSED(cuTexRefGetAddress_v2) UNUSED(cuTexRefGetArray) UNUSED(cuTexRefGetFilterMode)
UNUSED(cuTexRefGetFlags) UNUSED(cuTexRefGetFormat) UNUSED(cuTexRefSetAddress2D_v3) UNUSED(cuTexRefSetAddressMode)
UNUSED(cuTexRefSetAddress_v2) UNUSED(cuTexRefSetArray) UNUSED(cuTexRefSetFilterMode) UNUSED(cuTexRefSetFlags)
UNUSED(cuTexRefSetFormat)

/* --- for the tests --- */
long anyseg_test_count(int counter) { return counters[counter]; }
int anyseg_test_stack_depth(void) { return stack_depth; }
int anyseg_test_retained(void) { return retained; }
/* The call of that name (any call where it is empty) fails after so many of them that succeed. */
void anyseg_test_fail(const char *call, int error, int after)
{
    snprintf(fail_call, sizeof fail_call, "%s", call);
    fail_error = error;
    fail_after = after;
}
