/**
 * How many line breaks a piece of COPY data holds: a row each, because COPY writes a line break in a value as `\n`.
 * Without a branch in the loop: no processor can guess where rows end, and every wrong guess costs (half the time).
 */
export function countLines(bytes: Uint8Array): number {
  const {length} = bytes;
  let count = 0;
  for (let at = 0; at < length; at += 1) count += bytes[at] === 0x0a ? 1 : 0;
  return count;
}
