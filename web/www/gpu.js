// What WebGPU holds for this worker: buffers that were made and not yet destroyed, whoever made them, and news of a device
// that is lost. Import it before anything that opens a device.

export const held = { bytes: 0, buffers: 0 };

let device;
let onLost = () => {};

/** Calls `told` with the reason when the device is lost. */
export function whenLost(told) { onLost = told; }

/** Loses the device, as a crash of its driver does: for tests. */
export function loseDevice() { device?.destroy(); }

if (globalThis.GPUDevice) {
  const alive = new WeakSet();
  wrap(GPUDevice, "createBuffer", (createBuffer) => function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    alive.add(buffer);
    held.bytes += buffer.size;
    held.buffers += 1;
    return buffer;
  });
  wrap(GPUBuffer, "destroy", (destroy) => function () {
    if (alive.delete(this)) {
      held.bytes -= this.size;
      held.buffers -= 1;
    }
    destroy.call(this);
  });
  wrap(GPUAdapter, "requestDevice", (requestDevice) => async function (descriptor) {
    device = await requestDevice.call(this, descriptor);
    device.lost.then(({ message, reason }) => onLost(message || reason));
    return device;
  });
}

function wrap({ prototype }, name, around) {
  prototype[name] = around(prototype[name]);
}
