// Counts the WebGPU buffers of this worker that exist, and reports a lost device. Import this module before any module that
// opens a device.

export const held = { bytes: 0, buffers: 0 };

let device;
let onLost = () => {};

/** Calls `action` with the reason when the device is lost. */
export function whenLost(action) { onLost = action; }

/** Destroys the device, as a crash of its driver does. For tests. */
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
