import {describe, expect, it} from '@jest/globals';
import {rowCountChecks} from '../../../src/lib/load/psql.ts';

describe('the row count checks', () => {
  it('quote names inside and outside of literals', () => {
    const [, , sql] = rowCountChecks([{table: `public."it's"`, rows: 3}]).split('\n');
    expect(sql).toContain(`row_security_active('public."it''s"')`);
    expect(sql).toContain(`FROM ONLY public."it's")`);
  });

  it('turn row-level security on again, which the dump turned off: a hidden row is passed over, not an error', () => {
    expect(rowCountChecks([])).toMatch(/^SET row_security = on;\n/);
  });

  it('pass over a name that is not UTF-8: it cannot be asked for', () => {
    expect(rowCountChecks([{table: 'public.caf\ufffd', rows: 1}])).toBe(rowCountChecks([]));
  });
});
