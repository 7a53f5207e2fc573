/**
 * Settings of V8, for a program that streams: what it works with are buffers outside of V8's heap, and little lies in it. Plain JavaScript
 * that an old Node.js can read, too.
 * @param {number} major of Node.js: V8 complains of a flag that it does not know
 * @returns {string[]}
 */
export function v8Flags(major) {
  const flags = [
    // For every few dozen MB of buffers V8 marks its whole heap. Bit by bit, with all processors, that was a third of a backup's
    // processor time; all at once it is needed five times less often.
    '--no-incremental-marking',
  ];
  // The nursery of objects is 1 MB at the start, and grows step by step, with a collection at each: here, in one step.
  if (major <= 26) flags.push('--semi-space-growth-factor=16');
  return flags;
}
