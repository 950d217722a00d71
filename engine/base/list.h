/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive doubly linked list. Plain data: the owner of the head says what protects it.
 */
#ifndef VMD_BASE_LIST_H
#define VMD_BASE_LIST_H

#include "engine/base/mem.h"

#include <stdbool.h>

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
/* Inserts `n` after `at`; use the head for the front. */
static inline void list_insert(struct list *at, struct list *n)
{
    n->next = at->next;
    n->prev = at;
    at->next->prev = n;
    at->next = n;
}
static inline void list_append(struct list *head, struct list *n)
{
    list_insert(head->prev, n);
}
/* Unlinks and re-initialises, so that removing twice is harmless. */
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
/* Survives removal of the current node. */
#define list_for_each_safe(it, head)                                                            \
    for (struct list *it = (head)->next, *it##_next_ = it->next; it != (head);                  \
         it = it##_next_, it##_next_ = it->next)

#endif
