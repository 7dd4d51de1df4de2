// Bytes as the hosts hand them over -> Float32Array, exactly.

let table = null;

/** The value of each of the 65,536 float16 bit patterns, for browsers from before 2025. */
export function halfTable() {
  if (table) return table;
  table = new Float32Array(65536);
  for (let sign = 0; sign < 2; sign++) {
    for (let exponent = 0; exponent < 32; exponent++) {
      const start = (sign << 15) | (exponent << 10);
      const least = exponent ? 1024 : 0;
      const unit = (sign ? -1 : 1) * 2 ** (Math.max(exponent, 1) - 25);
      for (let fraction = 0; fraction < 1024; fraction++) {
        table[start + fraction] = exponent < 31 ? (least + fraction) * unit : fraction ? NaN : unit * Infinity;
      }
    }
  }
  return table;
}

/** Base64 text, ArrayBuffer, DataView or typed array -> Uint8Array (a view where possible). */
export function bytesOf(data) {
  if (typeof data === "string") {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(data);
    const text = atob(data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  throw new TypeError("a tensor must come as base64 text, ArrayBuffer, DataView or typed array");
}

const BYTES = { b1: 1, f2: 2, f4: 4 };

/**
 * One tensor of the payload.
 * @param {{dtype: "b1"|"f2"|"f4", shape: number[]}} meta  little-endian
 * @returns {Float32Array|Uint8Array} values in C order
 */
export function decode(meta, data) {
  if (data instanceof Float32Array) return data; // views that stand together decode once
  const size = BYTES[meta.dtype];
  if (!size) throw new Error(`dtype ${meta.dtype} is not known here; b1, f2 and f4 are`);
  let bytes = bytesOf(data);
  const count = meta.shape.reduce((product, length) => product * length, 1);
  if (bytes.byteLength !== count * size) {
    throw new Error(
      `${bytes.byteLength} bytes came, ${count * size} are due for ${meta.dtype} [${meta.shape}]`,
    );
  }
  // A notebook's message may start the buffer at an odd address, where typed arrays cannot look.
  if (bytes.byteOffset % size) bytes = bytes.slice();
  if (size === 1) return bytes;
  if (size === 4) return new Float32Array(bytes.buffer, bytes.byteOffset, count);
  if (globalThis.Float16Array) return new Float32Array(new Float16Array(bytes.buffer, bytes.byteOffset, count));
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
  const half = halfTable();
  const values = new Float32Array(count);
  // Indexed on purpose: a polyfill of one host makes TypedArray.from and iterators 20-40 x slower.
  for (let i = 0; i < count; i++) values[i] = half[bits[i]];
  return values;
}
