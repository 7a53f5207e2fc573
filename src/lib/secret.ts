import {inspect} from 'node:util';

const placeholder = '[secret]';

/** A string that must never be printed: every way of printing it gives `[secret]`; only `reveal()` gives the text. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return placeholder;
  }

  toJSON(): string {
    return placeholder;
  }

  [inspect.custom](): string {
    return placeholder;
  }
}

/**
 * A function that takes known secrets, and passwords in anything that looks like a URL, out of a text. Used once, where
 * text leaves the program. Secrets shorter than four characters are left: masking them would garble every message.
 */
export function maskerFor(secrets: readonly string[]): (text: string) => string {
  const known = [...new Set(secrets.flatMap((secret) => [secret, encodeURIComponent(secret)]))]
    .filter((secret) => secret.length >= 4)
    .sort((a, b) => b.length - a.length);
  return (text) => {
    let masked = text;
    for (const secret of known) masked = masked.replaceAll(secret, placeholder);
    // To the last @ before white space: a password may itself hold @, : or /.
    return masked.replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/]*):[^\s]*@/gi, `$1:${placeholder}@`);
  };
}
