/* SPDX-License-Identifier: Apache-2.0 */
/* A recursive-descent parser to a tree, its evaluation, derivative and printing. */
#include "project.h"

enum kind { NUMBER, VARIABLE, ADD, SUB, MUL, DIV, NEG };

struct node {
    enum kind kind;
    int64_t value;
    struct node *a, *b;
};

static struct node pool[4096];
static unsigned used;
static const char *at;

static struct node *make(enum kind kind, int64_t value, struct node *a, struct node *b)
{
    struct node *n = &pool[used++ % 4096];
    *n = (struct node){ kind, value, a, b };
    return n;
}

static void blanks(void)
{
    while (*at == ' ') {
        at++;
    }
}

static struct node *sum(void);

static struct node *atom(void)
{
    blanks();
    if (*at == '(') {
        at++;
        struct node *n = sum();
        blanks();
        at += *at == ')';
        return n;
    }
    if (*at == '-') {
        at++;
        return make(NEG, 0, atom(), NULL);
    }
    if (*at == 'x') {
        at++;
        return make(VARIABLE, 0, NULL, NULL);
    }
    char *end;
    int64_t value = strtoll(at, &end, 10);
    at = end > at ? end : at + (*at != 0);
    return make(NUMBER, value, NULL, NULL);
}

static struct node *product(void)
{
    struct node *n = atom();
    for (blanks(); *at == '*' || *at == '/'; blanks()) {
        enum kind kind = *at++ == '*' ? MUL : DIV;
        n = make(kind, 0, n, atom());
    }
    return n;
}

static struct node *sum(void)
{
    struct node *n = product();
    for (blanks(); *at == '+' || *at == '-'; blanks()) {
        enum kind kind = *at++ == '+' ? ADD : SUB;
        n = make(kind, 0, n, product());
    }
    return n;
}

static int64_t value_of(const struct node *n, int64_t x)
{
    int64_t b;
    switch (n->kind) {
    case NUMBER:
        return n->value;
    case VARIABLE:
        return x;
    case ADD:
        return value_of(n->a, x) + value_of(n->b, x);
    case SUB:
        return value_of(n->a, x) - value_of(n->b, x);
    case MUL:
        return value_of(n->a, x) * value_of(n->b, x);
    case DIV:
        b = value_of(n->b, x);
        return b ? value_of(n->a, x) / b : 0;
    default:
        return -value_of(n->a, x);
    }
}

static struct node *derive(struct node *n)
{
    switch (n->kind) {
    case NUMBER:
        return make(NUMBER, 0, NULL, NULL);
    case VARIABLE:
        return make(NUMBER, 1, NULL, NULL);
    case ADD:
    case SUB:
        return make(n->kind, 0, derive(n->a), derive(n->b));
    case MUL:
        return make(ADD, 0, make(MUL, 0, derive(n->a), n->b), make(MUL, 0, n->a, derive(n->b)));
    case DIV:
        return make(
            DIV, 0,
            make(SUB, 0, make(MUL, 0, derive(n->a), n->b), make(MUL, 0, n->a, derive(n->b))),
            make(MUL, 0, n->b, n->b));
    default:
        return make(NEG, 0, derive(n->a), NULL);
    }
}

static void show(const struct node *n)
{
    static const char signs[] = "?x+-*/-";
    if (n->kind == NUMBER) {
        printf("%" PRId64, n->value);
    } else if (n->kind == VARIABLE) {
        putchar('x');
    } else if (n->kind == NEG) {
        printf("-(");
        show(n->a);
        putchar(')');
    } else {
        putchar('(');
        show(n->a);
        putchar(signs[n->kind]);
        show(n->b);
        putchar(')');
    }
}

void report_expr(void)
{
    static const char *const texts[] = { "3*x*x + 2*x - 7", "(x+1)*(x-1)*(x+2)",
                                         "-(x/3) + 100/(x+1)", "((2+3)*(4-1))*x",
                                         "x*x*x*x - 5*x*x + 4" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        at = texts[i];
        struct node *n = sum();
        show(n);
        for (int64_t x = 1; x <= 1000; x *= 10) {
            printf(" %" PRId64, value_of(n, x));
        }
        printf(" derivative ");
        show(derive(n));
        putchar('\n');
    }
}
