/**
 * The objects that a dump defines, each with a digest of its SQL: to name what differs between a backup and what was
 * restored from it, and to tell differences that matter from those that don't.
 */
import {createHash, type Hash} from 'node:crypto';

export interface DumpEntry {
  /** As pg_dump heads it: `Name: patients; Type: TABLE; Schema: public; Owner: -`. */
  head: string;
  /** Of its SQL, hex; of more than a megabyte, with the blank lines behind it. */
  sha256: string;
  /** Of its lines in no order, without their commas: the same for a table whose columns come in another order. */
  linesSha256: string;
}

/** Lines of longer definitions are not sorted; a table has at most 1,600 columns. */
const longestText = 1 << 20;

/**
 * What heads an entry: `Name: patients; Type: TABLE; Schema: public; Owner: -`, of some with `Data for ` before it.
 * @param line the comment in the dump; a tablespace that it names belongs to the server, and not to the object
 */
export function headOf(line: Buffer): string {
  return line
    .toString()
    .slice('-- '.length)
    .replace(/; Tablespace: (?:(?!; Owner: ).)*$/s, '')
    .trim();
}

/** Gathers the SQL of a dump into its entries. */
export class EntryRecorder {
  readonly entries: DumpEntry[] = [];
  #head = '';
  #hash: Hash = createHash('sha256');
  #text: Buffer[] = [];
  #textBytes = 0;

  /** @param line the comment that heads an entry */
  begin(line: Buffer): void {
    this.end();
    this.#head = headOf(line);
  }

  add(bytes: Buffer): void {
    this.#textBytes += bytes.length;
    // A copy: the bytes may be part of a large chunk.
    if (this.#textBytes <= longestText) this.#text.push(Buffer.from(bytes));
    else {
      for (const text of [...this.#text.splice(0), bytes]) this.#hash.update(text);
    }
  }

  /** Ends the entry that is under way, also at the end of the dump. */
  end(): void {
    if (this.#head) {
      const text = withoutSeparator(Buffer.concat(this.#text)).toString('latin1');
      const sorted = text.split('\n').map((line) => line.replace(/,$/, ''));
      const digest = (latin1: string) => createHash('sha256').update(latin1, 'latin1').digest('hex');
      this.entries.push({
        head: this.#head,
        sha256: this.#textBytes > longestText ? this.#hash.digest('hex') : digest(text),
        linesSha256: digest(sorted.sort().join('\n')),
      });
    }
    this.#head = '';
    this.#hash = createHash('sha256');
    this.#text = [];
    this.#textBytes = 0;
  }
}

const separators = ['--\n', '\n'].map((text) => Buffer.from(text));

/** Without what stands between an entry and the next one: it depends on whether there is a setting between them. */
function withoutSeparator(text: Buffer): Buffer {
  let {length} = text;
  for (;;) {
    const found = separators.find((separator) =>
      text.subarray(0, length).subarray(-separator.length).equals(separator),
    );
    if (!found) return text.subarray(0, length);
    length -= found.length;
  }
}

/**
 * Entries that may be there or not, or read otherwise, after a correct restore: extensions that existed already and their
 * comments (which `CREATE EXTENSION` sets by itself), and the schema public, which every database has.
 */
const harmless = /^Name: (EXTENSION .*; Type: COMMENT|.*; Type: EXTENSION|(SCHEMA )?public; Type: (SCHEMA|COMMENT));/;

/** What differs between the objects of two dumps, each as one line. */
export function entryDifferences(
  expected: readonly DumpEntry[],
  actual: readonly DumpEntry[],
  options: {
    /** Compare only which objects there are: the text differs between versions of pg_dump and the server. */
    onlyNames?: boolean;
  } = {},
): string[] {
  const found: string[] = [];
  const remaining = new Map<string, DumpEntry[]>();
  for (const entry of actual) remaining.set(entry.head, [...(remaining.get(entry.head) ?? []), entry]);
  for (const want of expected) {
    const have = remaining.get(want.head)?.shift();
    if (harmless.test(want.head)) continue;
    if (!have) found.push(`missing: ${shortHead(want.head)}`);
    // The rows are compared by themselves, and the COPY statement names the columns in the order they have.
    else if (/; Type: TABLE DATA;/.test(want.head)) continue;
    else if ((options.onlyNames && !/; Type: (BLOBS|SEQUENCE SET);/.test(want.head)) || have.sha256 === want.sha256)
      continue;
    // Inheritance children come back with their columns in another order.
    else if (!/; Type: TABLE;/.test(want.head) || have.linesSha256 !== want.linesSha256) {
      found.push(
        `differs: ${shortHead(want.head)}: SHA-256 ${have.sha256.slice(0, 16)}…, not ${want.sha256.slice(0, 16)}…`,
      );
    }
  }
  for (const entry of [...remaining.values()].flat()) {
    if (!harmless.test(entry.head)) found.push(`not in the backup: ${shortHead(entry.head)}`);
  }
  return found;
}

/** `INDEX public.patients_name_idx` of an entry's head. */
export function shortHead(head: string): string {
  const match = /^(?:Data for )?Name: (.*); Type: (.*?); Schema: (.*?); Owner: /s.exec(head);
  if (!match) return head;
  const [, name, type, schema] = match;
  return `${type} ${schema === '-' ? '' : `${schema}.`}${name}`;
}
