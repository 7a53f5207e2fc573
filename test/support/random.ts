/** Random numbers that come again with the same seed. */
export class Random {
  #state: number;

  /** @param seed an integer below 2³² */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** At least 0 and below 1 (mulberry32 by Tommy Ettinger, public domain). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, at least 0 and below `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** So many of the items (all of them if there are not more), in their order. */
  choose<T>(items: readonly T[], count: number): T[] {
    const ranked = items.map((item, index) => ({item, index, rank: this.next()}));
    return ranked
      .toSorted((a, b) => a.rank - b.rank)
      .slice(0, count)
      .toSorted((a, b) => a.index - b.index)
      .map(({item}) => item);
  }

  /** So many bytes that do not compress. */
  bytes(length: number): Buffer {
    const words = new Uint32Array(Math.ceil(length / 4));
    for (let index = 0; index < words.length; index++) words[index] = this.below(2 ** 32);
    return Buffer.from(words.buffer, 0, length);
  }
}
