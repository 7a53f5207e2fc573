/** How many line breaks a piece of COPY data holds: a row each, because COPY writes a line break in a value as `\n`. */
export function countLines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] === 0x0a) count += 1;
  return count;
}
