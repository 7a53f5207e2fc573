import {describe, expect, it} from '@jest/globals';
import {filterEntries} from '../../../src/lib/dump/entry-filter.ts';
import {ManagedRules} from '../../../src/lib/dump/managed.ts';
import {feed} from '../feed.ts';

/** A table's data, with the table's definition before it if the dump has one. */
const dump = (name: string, isMade: boolean) =>
  Buffer.from(
    `SET row_security = off;\n\n--\n-- Name: x; Type: TABLE; Schema: public; Owner: -\n--\n\n` +
      `${isMade ? `CREATE TABLE public.${name} (\n    a integer\n);\n` : ''}\n\n--\n` +
      `-- Data for Name: x; Type: TABLE DATA; Schema: public; Owner: -\n--\n\nCOPY public.${name} (a) FROM stdin;\n1\n\\.\n\n`,
    'latin1',
  );

describe('the rows of a table, for a role that is no superuser', () => {
  it.each([
    ['that the dump makes', 'plain', true, true],
    ['that the dump makes, by a name that is not UTF-8', '"caf\xe9"', true, true],
    ['that it does not make: an extension does', 'plain', false, false],
    ['that it does not make, by a name that is not UTF-8: whose it is cannot be said', '"caf\xe9"', false, true],
  ])('%s', async (_, name, isMade, isKept) => {
    const rules = new ManagedRules({settings: new Set(), languages: new Set(), extensionTables: new Set()});
    const released = await feed([dump(name, isMade)], filterEntries(rules));
    expect(released.toString('latin1').includes('\n1\n')).toBe(isKept);
    expect(rules.leftOut.length).toBe(isKept ? 0 : 1);
  });
});
