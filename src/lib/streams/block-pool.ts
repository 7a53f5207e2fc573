/** Plaintext bytes in a block. Smaller ones compress worse, larger ones only take more memory. */
export const blockBytes = 1 << 20;

/**
 * Blocks that are used again, between one stage that fills them and one that is done with them. Fresh ones would cost a page
 * fault every 4 KiB, and a garbage collection every few dozen.
 */
export class BlockPool {
  readonly #idle = new Set<Buffer>();

  take(): Buffer {
    const [block] = this.#idle;
    if (!block) return Buffer.allocUnsafeSlow(blockBytes);
    this.#idle.delete(block);
    return block;
  }

  /** Takes back a block that nobody looks at any more. What is no whole block is left to the garbage collector. */
  give(block: Buffer): void {
    if (block.length === blockBytes && block.buffer.byteLength === blockBytes) this.#idle.add(block);
  }
}
